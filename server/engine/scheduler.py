"""Which sessions go into the next batched step. Owns the decision alone: no clocks, threads, sockets or tensors.

Times are passed in, in seconds of any monotonic clock. Among worlds the earliest deadline goes first (EDF); a session's
deadline is one period after it became runnable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.sessions.pacing import NEVER, SchedulerView


@dataclass(frozen=True, slots=True)
class Plan:
    """The next tick: `slots` of one `world`, most urgent first.

    Or no slots; wake_at: when to plan again, `NEVER` for when a session changes.
    """

    world: str | None
    slots: tuple[int, ...]
    wake_at: float


def plan(views: Iterable[SchedulerView], now: float, max_batch: int) -> Plan:
    """Plan all runnable sessions of the most urgent world, up to `max_batch`."""
    views = list(views)
    ready = sorted((v for v in views if v.runnable_at <= now), key=lambda v: (v.deadline, v.slot))
    if not ready:
        return Plan(None, (), min((v.runnable_at for v in views), default=NEVER))
    world = ready[0].world
    return Plan(world, tuple(v.slot for v in ready if v.world == world)[:max_batch], now)


def bucket_for(num_slots: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds `num_slots`; `num_slots` itself without buckets."""
    return next((size for size in buckets if size >= num_slots), num_slots)
