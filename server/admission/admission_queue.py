"""Who gets a slot and who waits. Owns slots, the queue and its estimates; knows no worlds, clocks or threads.

A session is admitted if there is a free slot and, as a callback says, time for one more. Not thread-safe.
"""

from __future__ import annotations

from collections import deque
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

    has_time: returns whether there is time for these sessions as well, beside those that are admitted already.
    """

    def __init__(
        self, num_slots: int, queue_limit: int, has_time: Callable[[Sequence[str]], bool] = lambda _keys: True
    ) -> None:
        self._has_time = has_time
        self._num_slots = num_slots
        self._queue_limit = queue_limit
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

    def join(self, key: str, now: float) -> Admitted | Waiting:
        """Return a slot or a place in the queue. Raise ServerFullError if there is neither."""
        if not self._queue and self._may_play([key]):
            return self._admit(key, now)
        if len(self._queue) >= self._queue_limit:
            raise ServerFullError(
                f"{self.num_active} playing and {self.num_waiting} queued are all this server takes; try again later"
            )
        self._queue.append(key)
        return self.place(key)

    def place(self, key: str) -> Admitted | Waiting:
        """Return the slot or the place in the queue of a session that has joined."""
        if key in self._active:
            return Admitted(key, self._active[key][0])
        position = self._queue.index(key) + 1
        return Waiting(key, position, self._eta(position))

    def leave(self, key: str, now: float) -> list[Admitted | Waiting]:
        """Free a slot or a place in the queue. Return who is admitted by that, and all new places in the queue."""
        if key in self._queue:
            self._queue.remove(key)
        elif key in self._active:
            slot, since = self._active.pop(key)
            self._free.append(slot)
            self._stays.append(now - since)
        else:
            return []
        return self.admit_more(now) or [self.place(waiting) for waiting in self._queue]

    def admit_more(self, now: float) -> list[Admitted | Waiting]:
        """Admit whoever can play now. Return them and all new places in the queue, or nothing if nobody can."""
        admitted: list[Admitted] = []
        while self._queue and self._may_play([*(place.key for place in admitted), self._queue[0]]):
            admitted.append(self._admit(self._queue.popleft(), now))
        return [*admitted, *map(self.place, self._queue)] if admitted else []

    def _may_play(self, keys: Sequence[str]) -> bool:
        """Return whether the last of `keys` can be admitted after the others, which just were."""
        return bool(self._free) and self._has_time(keys)

    def _admit(self, key: str, now: float) -> Admitted:
        slot = self._free.pop()
        self._active[key] = (slot, now)
        return Admitted(key, slot)

    def _eta(self, position: int) -> float | None:
        """Estimate the wait: each slot becomes free once per mean stay."""
        if not self._stays:
            return None
        return position * sum(self._stays) / len(self._stays) / self._num_slots
