"""When a session's next chunk is due. Owns a session's pace (speed, pauses, single steps) and what a scheduler may know
of a session; knows no clocks (times are passed in, in seconds of any monotonic clock), threads, sockets or tensors.

Real-time sessions are due on a grid that all sessions of equal rate share, so sessions that joined at different times
fall into one batch without anyone waiting for anyone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

NEVER = math.inf
MAX_STEPS = 64
"""Chunks of `step` messages that may wait at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerView:
    """What the scheduler knows of a session.

    ready_at: when it became or becomes runnable, `NEVER` while it waits for its player; period_s: how long one chunk
    lasts; unacked: chunks in flight, of at most `max_unacked`.
    """

    slot: int
    world: str
    ready_at: float
    period_s: float
    unacked: int
    max_unacked: int

    @property
    def runnable_at(self) -> float:
        """Return when it may be stepped, flow control included."""
        return self.ready_at if self.unacked < self.max_unacked else NEVER

    @property
    def deadline(self) -> float:
        """Return one period after the session became runnable."""
        return self.runnable_at + self.period_s


def grid_point(now: float, period_s: float) -> float:
    """Return the newest point of the shared grid that is not after `now`."""
    return math.floor(now / period_s) * period_s


def next_due(due_at: float, period_s: float, now: float) -> float:
    """Return when a session that was due at `due_at` and is stepped now is due again: one period later, on the grid.

    Lateness does not accumulate, so the rate holds under jitter. A session more than a period behind skips to the
    present instead of catching up in a burst.
    """
    following = (round(due_at / period_s) + 1) * period_s
    return max(following, grid_point(now, period_s))


class Pace:
    """How fast a session runs: at a speed, without a pace (`speed` None), paused, or step by step while paused."""

    def __init__(self) -> None:
        self.speed: float | None = 1.0
        self.is_paused = False
        self._num_steps = 0
        self._step_requested_at = 0.0
        self._due_at = -NEVER

    def set_speed(self, speed: float | None) -> None:
        """Run at `speed` times the world's own rate; None: as fast as the model allows."""
        self.speed = speed
        self.reset()

    def reset(self) -> None:
        """Be due at once; the grid counts from the next chunk on."""
        self._due_at = -NEVER

    def pause(self, *, paused: bool) -> None:
        """Pause or play on; either way single steps that wait are forgotten."""
        self.is_paused, self._num_steps = paused, 0

    def step(self, num_chunks: int, now: float) -> None:
        """Pause, and run `num_chunks` more chunks; at most `MAX_STEPS` wait."""
        if not self._num_steps:
            self._step_requested_at = now
        self.is_paused, self._num_steps = True, min(self._num_steps + num_chunks, MAX_STEPS)

    def ready_at(self, lockstep_arrival: float | None, *, lockstep: bool) -> float:
        """Return when the next chunk may begin. lockstep_arrival: when the oldest waiting act arrived, None without."""
        if self._num_steps:
            return self._step_requested_at
        if self.is_paused:
            return NEVER
        if lockstep:
            return NEVER if lockstep_arrival is None else lockstep_arrival
        return self._due_at

    def begin_chunk(self, now: float, period_s: float) -> None:
        """Count a chunk that begins now."""
        self._num_steps = max(0, self._num_steps - 1)
        self._step_requested_at = now
        if self.speed is None:
            self._due_at = now
        else:
            due_at = self._due_at if self._due_at > -NEVER else grid_point(now, period_s)
            self._due_at = next_due(due_at, period_s, now)

    def to_data(self) -> dict[str, Any]:
        """Return plain values for `restore`. Times are left out: another machine has another clock."""
        return {"speed": self.speed, "paused": self.is_paused, "num_steps": self._num_steps}

    def restore(self, data: dict[str, Any], now: float) -> None:
        """Continue from `to_data`. Raise KeyError."""
        self.speed, self.is_paused, self._num_steps = data["speed"], data["paused"], data["num_steps"]
        self._step_requested_at = now
