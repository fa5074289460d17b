"""Whether one more could play: the time that a round of ticks will take, against how long a chunk lasts.

Players in real time are due together, once in a period; agents and those without a pace take what is left, but are
counted at their world's own rate, so that they get as much as others. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

RECENT_S = 1.0
"""Who was stepped so recently counts as playing; and who has been admitted."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A session that takes time: of which world, and how long a chunk of it lasts."""

    world: str
    period_s: float


def load(demands: Iterable[Demand], latency_s: Mapping[str, Mapping[int, float]]) -> float:
    """The share of all time that these sessions' ticks will take. latency_s: of each world, by batch size from 1 on."""
    by_world: dict[str, list[float]] = {}
    for demand in demands:
        by_world.setdefault(demand.world, []).append(demand.period_s)
    return sum(round_s(len(periods), latency_s[world]) / min(periods) for world, periods in by_world.items())


def round_s(number: int, latency_s: Mapping[int, float]) -> float:
    """Seconds for one chunk of each of `number` sessions: whole batches, and what remains.

    A batch counts for no more than a larger one takes (sizes that are not compiled can be slower), so that who leaves
    never leaves too little time for another.
    """
    largest = max(latency_s)
    whole, rest = divmod(number, largest)
    return whole * latency_s[largest] + (min(s for size, s in latency_s.items() if size >= rest) if rest else 0.0)
