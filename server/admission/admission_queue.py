"""Who gets a slot and who waits. Owns slots, the queue and its estimates; knows no worlds, clocks or threads.

A session is admitted if there is a free slot and, as a callback says, time for one more. A session that comes back from
a pause has its slot, but others may have its time: then it waits in the queue as well. Sessions of one address have at
most their share of slots and queue, and of those who wait, the address with the fewest slots is next. Not thread-safe.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.errors import ServerFullError

MAX_STAYS = 32


@dataclass(frozen=True, slots=True)
class Admitted:
    """The session `key` has `slot`."""

    key: str
    slot: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The session `key` is at `position` in the queue (1 is next); `eta_s` is None while nobody has left yet."""

    key: str
    position: int
    eta_s: float | None


class AdmissionQueue:
    """Slots for `num_slots` sessions, and a queue for `queue_limit` more.

    has_time: returns whether there is time for these sessions as well, beside those that are admitted already. share:
    the part of the slots, and of the queue, that one address may have; at least one of each.
    """

    def __init__(
        self,
        num_slots: int,
        queue_limit: int,
        has_time: Callable[[Sequence[str]], bool] = lambda _keys: True,
        share: float = 1.0,
    ) -> None:
        self._has_time = has_time
        self._num_slots = num_slots
        self._queue_limit = queue_limit
        self._max_slots, self._max_waiting = (max(1, int(share * number)) for number in (num_slots, queue_limit))
        self._addresses: dict[str, str] = {}  # of the sessions whose address is known
        self._free = list(range(num_slots - 1, -1, -1))
        self._active: dict[str, tuple[int, float]] = {}
        self._queue: deque[str] = deque()
        self._stays: deque[float] = deque(maxlen=MAX_STAYS)

    @property
    def num_active(self) -> int:
        return len(self._active)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    def join(self, key: str, now: float, address: str = "") -> Admitted | Waiting:
        """Return a slot or a place in the queue. Raise ServerFullError if there is neither. address: what shares are
        counted by; without one, the session counts for itself."""
        is_next = not any(self._has_slot(waiting) for waiting in self._queue)
        if is_next and self._may_have_slot(address) and self._has_time([key]):
            self._addresses[key] = address
            return self._admit(key, now)
        num_waiting = sum(self._addresses[waiting] == address for waiting in self._queue) if address else 0
        if len(self._queue) >= self._queue_limit or num_waiting >= self._max_waiting:
            where = f"{num_waiting} of them from your address, " if num_waiting >= self._max_waiting else ""
            raise ServerFullError(
                f"{self.num_active} playing and {self.num_waiting} queued, {where}are all this server takes; "
                "try again later"
            )
        self._addresses[key] = address
        self._queue.append(key)
        self._sort()
        return self.place(key)

    def waiting_behind(self, key: str) -> list[Admitted | Waiting]:
        """Return the places of those who are in the queue behind a session."""
        queue = list(self._queue)
        return [self.place(behind) for behind in queue[queue.index(key) + 1 :]] if key in queue else []

    def ask_again(self, key: str) -> Admitted | Waiting:
        """Return whether a session may use its slot again after a pause, or its place in the queue. Those who wait for
        a slot do not hold it up, those who wait for time do."""
        may_play = not any(self._has_slot(waiting) for waiting in self._queue) and self._has_time([key])
        if not may_play and key not in self._queue:
            self._queue.append(key)
            self._sort()
        return self.place(key)

    def withdraw(self, key: str) -> list[Admitted | Waiting]:
        """Forget that a session that has a slot waits for time. Return the new places of those behind it."""
        if key not in self._queue or key not in self._active:
            return []
        behind = self.waiting_behind(key)
        self._queue.remove(key)
        return [self.place(place.key) for place in behind]

    def place(self, key: str) -> Admitted | Waiting:
        """Return the slot or the place in the queue of a session that has joined."""
        if key not in self._queue:
            return Admitted(key, self._active[key][0])
        position = self._queue.index(key) + 1
        return Waiting(key, position, self._eta(position))

    def leave(self, key: str, now: float) -> list[Admitted | Waiting]:
        """Free a slot or a place in the queue. Return who is admitted by that, and all new places in the queue."""
        if key not in self._queue and key not in self._active:
            return []
        if key in self._queue:
            self._queue.remove(key)
        del self._addresses[key]
        if key in self._active:
            slot, since = self._active.pop(key)
            self._free.append(slot)
            self._stays.append(now - since)
        return self.admit_more(now) or [self.place(waiting) for waiting in self._queue]

    def admit_more(self, now: float) -> list[Admitted | Waiting]:
        """Admit whoever can play now. Return them and all new places in the queue, or nothing if nobody can."""
        admitted: list[Admitted] = []
        self._sort()
        for key in list(self._queue):
            if not self._has_slot(key):
                continue
            if not self._has_time([*(place.key for place in admitted), key]):
                break
            self._queue.remove(key)
            admitted.append(self._admit(key, now))
        return [*admitted, *map(self.place, self._queue)] if admitted else []

    def _has_slot(self, key: str) -> bool:
        """Return whether there is a slot for this session: its own or a free one."""
        return key in self._active or self._may_have_slot(self._addresses[key])

    def _may_have_slot(self, address: str) -> bool:
        num_slots = sum(self._addresses[key] == address for key in self._active) if address else 0
        return bool(self._free) and num_slots < self._max_slots

    def _sort(self) -> None:
        """Put the queue in order: by how many sessions of the address have a slot or are ahead, then by arrival. Those
        that have a slot themselves are first."""
        ahead = Counter(self._addresses[key] for key in self._active)
        ranks = dict.fromkeys(self._queue, 0)
        for key in self._queue:
            if (address := self._addresses[key]) and key not in self._active:
                ranks[key] = ahead[address]
                ahead[address] += 1
        self._queue = deque(sorted(self._queue, key=ranks.__getitem__))

    def _admit(self, key: str, now: float) -> Admitted:
        if key not in self._active:
            self._active[key] = (self._free.pop(), now)
        return Admitted(key, self._active[key][0])

    def _eta(self, position: int) -> float | None:
        """Estimate the wait: each slot becomes free once per mean stay."""
        if not self._stays:
            return None
        return position * sum(self._stays) / len(self._stays) / self._num_slots
