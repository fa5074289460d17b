"""Whether there is time for one more session: how long a round of ticks takes, against how long a chunk lasts.

Real-time sessions are due together once per period. Agents and sessions without a pace use what is left, but count at
their world's own rate, so that they get as much as others. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

RECENT_S = 1.0
"""A session that was stepped or admitted this recently counts as playing."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A session's need of time: its world, and how long one of its chunks lasts."""

    world: str
    period_s: float


def load(demands: Iterable[Demand], latency_s: Mapping[str, Mapping[int, float]]) -> float:
    """Return the share of all time that these sessions' ticks take. latency_s: by world and batch size, from 1 on."""
    by_world: dict[str, list[float]] = {}
    for demand in demands:
        by_world.setdefault(demand.world, []).append(demand.period_s)
    return sum(round_s(len(periods), latency_s[world]) / min(periods) for world, periods in by_world.items())


def round_s(number: int, latency_s: Mapping[int, float]) -> float:
    """Return seconds for one chunk of each of `number` sessions: full batches and a rest.

    A batch counts for no more than a larger one takes (sizes that are not compiled can be slower), so that a session
    that leaves always makes room for another.
    """
    largest = max(latency_s)
    num_full, rest = divmod(number, largest)
    return num_full * latency_s[largest] + (min(s for size, s in latency_s.items() if size >= rest) if rest else 0.0)
