"""Which sessions go into the next batched step. Owns the decision alone: no clocks, threads, sockets or tensors.

Time is handed in, in seconds on any monotonic clock. Real-time sessions are due on a grid that all sessions of equal
rate share, so sessions that joined at different moments fall into one batch without anyone waiting for anyone.
Among worlds the earliest deadline goes first (EDF); a session's deadline is one period after it became runnable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEVER = math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What the scheduler may know of a session. `ready_at`: when it became or becomes runnable, `NEVER` while it waits
    for its player; `period_s`: the time one chunk lasts; `unacked`: chunks in flight of at most `max_unacked`.
    """

    slot: int
    world: str
    ready_at: float
    period_s: float
    unacked: int
    max_unacked: int

    @property
    def runnable_at(self) -> float:
        return self.ready_at if self.unacked < self.max_unacked else NEVER

    @property
    def deadline(self) -> float:
        return self.runnable_at + self.period_s


@dataclass(frozen=True, slots=True)
class Plan:
    """The next tick: `slots` of one `world`, most urgent first; or none, and when to ask again (`NEVER`: on news)."""

    world: str | None
    slots: tuple[int, ...]
    wake_at: float


def plan(views: Iterable[View], now: float, max_batch: int) -> Plan:
    """Everything of the most urgent world that is runnable now, up to `max_batch`."""
    views = list(views)
    ready = sorted((v for v in views if v.runnable_at <= now), key=lambda v: (v.deadline, v.slot))
    if not ready:
        return Plan(None, (), min((v.runnable_at for v in views), default=NEVER))
    world = ready[0].world
    return Plan(world, tuple(v.slot for v in ready if v.world == world)[:max_batch], now)


def grid_point(now: float, period_s: float) -> float:
    """The newest point of the shared grid that is not after `now`."""
    return math.floor(now / period_s) * period_s


def next_due(due_at: float, period_s: float, now: float) -> float:
    """When a session that was due at `due_at` and is served now is due again: one period on, never in arrears.

    Being late moves nothing, so the rate holds under jitter; a session that fell behind by more than a period skips
    to the present instead of catching up in a burst.
    """
    following = (round(due_at / period_s) + 1) * period_s
    return max(following, grid_point(now, period_s))


def bucket_for(num_slots: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `num_slots`; `num_slots` itself without buckets."""
    return next((size for size in buckets if size >= num_slots), num_slots)
