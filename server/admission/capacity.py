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
    """A session's need of time: its world, how long one of its chunks lasts, and how many frames a chunk has."""

    world: str
    period_s: float
    chunk_frames: int = 1


def tick_ms(step_ms: float, decode_ms: float, num_threads: int, num_cores: int) -> float:
    """Return milliseconds from one tick to the next when they follow each other without a pause.

    Decoding, on one core, runs beside the next step, on `num_threads`: whichever takes longer, but no less than all the
    work takes on all cores.
    """
    return max(step_ms, decode_ms, (num_threads * step_ms + decode_ms) / num_cores)


def load(
    demands: Iterable[Demand],
    latency_s: Mapping[str, Mapping[int, float]],
    frame_s: float = 0.0,
    num_cores: int = 1,
) -> float:
    """Return the share of all time that these sessions take: their ticks, and what each frame costs beside them.

    latency_s: of a tick (`tick_ms`), by world and batch size, from 1 on. frame_s: processor time for encoding and
    sending a frame; the event loop, which sends them all, has one core at most.
    """
    by_world: dict[str, list[float]] = {}
    frames_s = 0.0
    for demand in demands:
        by_world.setdefault(demand.world, []).append(demand.period_s)
        frames_s += frame_s * demand.chunk_frames / demand.period_s
    ticks = sum(round_s(len(periods), latency_s[world]) / min(periods) for world, periods in by_world.items())
    return max(ticks + frames_s / num_cores, frames_s)


def round_s(number: int, latency_s: Mapping[int, float]) -> float:
    """Return seconds for one chunk of each of `number` sessions: full batches and a rest.

    A batch counts for no more than a larger one takes (sizes that are not compiled can be slower), so that a session
    that leaves always makes room for another.
    """
    largest = max(latency_s)
    num_full, rest = divmod(number, largest)
    return num_full * latency_s[largest] + (min(s for size, s in latency_s.items() if size >= rest) if rest else 0.0)
