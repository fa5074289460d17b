"""What one session has asked for that costs as much as many steps: a start (the newest counts) and forks.

Owns their order, their bounds and the distance they keep; knows no clocks (time is handed in, in seconds), no tensors.
"""

from __future__ import annotations

from collections import deque

from server.engine.scheduler import NEVER
from server.errors import TooManyPendingError
from server.sessions.run import ForkRequest, RunRequest

INTERVAL_S = 0.5
MAX_FORKS = 4


class PendingRequests:
    """`max_starts`: how many starts may be owed a receipt."""

    def __init__(self, max_starts: int) -> None:
        self._max_starts = max_starts
        self._start: RunRequest | None = None
        self._asked_at = 0.0
        self._owed_starts: list[int] = []
        self._forks: deque[ForkRequest] = deque()
        self._last_at = -NEVER

    @property
    def start(self) -> RunRequest | None:
        """The start to carry out."""
        return self._start

    def put_start(self, request: RunRequest, now: float) -> None:
        """Raises TooManyPendingError."""
        if len(self._owed_starts) >= self._max_starts:
            raise TooManyPendingError(f"{len(self._owed_starts)} starts already wait; wait for a start's receipt")
        if self._start is None:
            self._asked_at = now
        self._start = request
        if request.control_seq is not None:
            self._owed_starts.append(request.control_seq)

    def put_fork(self, request: ForkRequest) -> None:
        """Raises TooManyPendingError."""
        if len(self._forks) >= MAX_FORKS:
            raise TooManyPendingError(f"{MAX_FORKS} forks already wait; wait for a fork's answer")
        self._forks.append(request)

    def start_at(self) -> float:
        """When the start is due: `INTERVAL_S` after what was carried out before, and not before the forks."""
        if self._start is None or self._forks:
            return NEVER
        return max(self._asked_at, self._last_at + INTERVAL_S)

    def fork_at(self) -> float:
        """When the oldest fork is due, at the same distance."""
        return self._last_at + INTERVAL_S if self._forks else NEVER

    def take_start(self, now: float) -> tuple[RunRequest, list[int]]:
        """The start, and the numbers of all requests that it answers."""
        assert self._start is not None
        request, answered = self._start, self._owed_starts
        self._start, self._owed_starts, self._last_at = None, [], now
        return request, answered

    def take_fork(self, now: float) -> ForkRequest:
        """The oldest fork."""
        self._last_at = now
        return self._forks.popleft()
