"""A session's pending requests that cost as much as many steps: a start (the newest replaces older ones) and forks.

Owns their order, their limits and the interval between them; knows no clocks (times are passed in, in seconds) and no
tensors.
"""

from __future__ import annotations

from collections import deque

from server.errors import TooManyPendingError
from server.sessions.pacing import NEVER
from server.sessions.run import ForkRequest, RunRequest

INTERVAL_S = 0.5
MAX_FORKS = 4


class PendingRequests:
    """What one session has requested. max_starts: how many starts may be owed a receipt."""

    def __init__(self, max_starts: int) -> None:
        self._max_starts = max_starts
        self._start: RunRequest | None = None
        self.is_restart = False  # whether the start continues the session's last run
        self._requested_at = 0.0
        self._owed_starts: list[int] = []
        self._forks: deque[ForkRequest] = deque()
        self._last_done_at = -NEVER

    @property
    def start(self) -> RunRequest | None:
        """Return the pending start."""
        return self._start

    def put_start(self, request: RunRequest, now: float, *, is_restart: bool = False) -> None:
        """Replace the pending start. Raise TooManyPendingError."""
        if len(self._owed_starts) >= self._max_starts:
            raise TooManyPendingError(f"{len(self._owed_starts)} starts are already pending; wait for a receipt")
        if self._start is None:
            self._requested_at = now
        self._start, self.is_restart = request, is_restart
        if request.control_seq is not None:
            self._owed_starts.append(request.control_seq)

    def put_fork(self, request: ForkRequest) -> None:
        """Queue a fork. Raise TooManyPendingError."""
        if len(self._forks) >= MAX_FORKS:
            raise TooManyPendingError(f"{MAX_FORKS} forks are already pending; wait for an answer")
        self._forks.append(request)

    def start_at(self, *, forks_first: bool = True) -> float:
        """Return when the start is due: `INTERVAL_S` after the previous request, after the forks if `forks_first`."""
        if self._start is None or (forks_first and self._forks):
            return NEVER
        return max(self._requested_at, self._last_done_at + INTERVAL_S)

    def fork_at(self) -> float:
        """Return when the oldest fork is due, after the same interval."""
        return self._last_done_at + INTERVAL_S if self._forks else NEVER

    def take_start(self, now: float) -> tuple[RunRequest, list[int]]:
        """Remove the start. Return it with the numbers of all requests that it answers."""
        assert self._start is not None
        request, answered = self._start, self._owed_starts
        self._start, self._owed_starts, self._last_done_at = None, [], now
        return request, answered

    def take_forks(self) -> list[ForkRequest]:
        """Remove and return all forks."""
        forks = list(self._forks)
        self._forks.clear()
        return forks

    def take_fork(self, now: float) -> ForkRequest:
        """Remove and return the oldest fork."""
        self._last_done_at = now
        return self._forks.popleft()
