"""Who gets a slot and who waits. Owns slots, the queue and its estimates; knows no worlds, clocks or threads.

A slot is free or it is not: admitting by predicted tick time (a calibrated latency per batch size against every
session's deadline) belongs here, in `Lobby._admits`, and needs nothing outside this file but those latencies.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from server.errors import ServerFullError

REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class Admitted:
    """`key` may use `slot`."""

    key: str
    slot: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """`key` is `position` in the queue (1 is next); `eta_s` is None while nobody has left yet."""

    key: str
    position: int
    eta_s: float | None


class Lobby:
    """`num_slots` players at once; `queue_limit` more may wait."""

    def __init__(self, num_slots: int, queue_limit: int) -> None:
        self._num_slots = num_slots
        self._queue_limit = queue_limit
        self._free = list(range(num_slots - 1, -1, -1))
        self._active: dict[str, tuple[int, float]] = {}
        self._queue: deque[str] = deque()
        self._stays: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def num_active(self) -> int:
        return len(self._active)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    def join(self, key: str, now: float) -> Admitted | Waiting:
        """A slot, or a place in the queue. Raises ServerFullError when there is neither."""
        if self._admits() and not self._queue:
            return self._admit(key, now)
        if len(self._queue) >= self._queue_limit:
            raise ServerFullError(
                f"{self.num_active} players and {self.num_waiting} waiting are all this server takes; try again later"
            )
        self._queue.append(key)
        return Waiting(key, len(self._queue), self._eta(len(self._queue)))

    def leave(self, key: str, now: float) -> list[Admitted | Waiting]:
        """Give up a slot or a place: who is admitted by that, and everybody's new place in the queue."""
        if key in self._queue:
            self._queue.remove(key)
        elif key in self._active:
            slot, since = self._active.pop(key)
            self._free.append(slot)
            self._stays.append(now - since)
        else:
            return []
        news: list[Admitted | Waiting] = []
        while self._queue and self._admits():
            news.append(self._admit(self._queue.popleft(), now))
        news += [Waiting(k, place, self._eta(place)) for place, k in enumerate(self._queue, start=1)]
        return news

    def _admits(self) -> bool:
        return bool(self._free)

    def _admit(self, key: str, now: float) -> Admitted:
        slot = self._free.pop()
        self._active[key] = (slot, now)
        return Admitted(key, slot)

    def _eta(self, position: int) -> float | None:
        """Players leave once per mean stay and slot."""
        if not self._stays:
            return None
        return position * sum(self._stays) / len(self._stays) / self._num_slots
