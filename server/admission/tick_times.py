"""What a tick of each batch size takes now, for admission: measured at the start, then followed by the ticks of those
who play. Owns the statistic; knows no models and no clocks.

One thread reports ticks; any thread may read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median

WINDOW = 30
"""Ticks of a batch size whose median counts: a second of play at 30 frames per second."""
FEWEST = 5
"""With fewer ticks than this, a size takes as long as it was measured, times how much slower other ticks are now."""
RECENT = 300
"""Ticks of any size after which a size's own ticks no longer count."""


class TickTimes:
    """Times by batch size. measured_ms: those measured so far."""

    def __init__(self, measured_ms: Mapping[int, float] | None = None) -> None:
        self._measured_ms = dict(measured_ms or {})
        self._ticks_ms: dict[int, deque[float]] = {}
        self._last_tick: dict[int, int] = {}
        self._slowdowns: deque[float] = deque(maxlen=WINDOW)
        self._num_ticks = 0
        self._now_ms: Mapping[int, float] = dict(self._measured_ms)

    @property
    def now_ms(self) -> Mapping[int, float]:
        """Return the milliseconds that a tick of each measured size takes now."""
        return self._now_ms

    @property
    def slowdown(self) -> float:
        """Return how many times longer than measured the newest ticks took, of whatever size."""
        return median(self._slowdowns) if len(self._slowdowns) >= FEWEST else 1.0

    def measure(self, size: int, tick_ms: float) -> None:
        """Put a size's new measurement in the place of the former one and of its ticks."""
        self._measured_ms[size] = tick_ms
        self._ticks_ms.pop(size, None)
        self._slowdowns.clear()
        self._update()

    def note(self, size: int, tick_ms: float) -> None:
        """Count a tick of those who play. Sizes that were not measured are left out."""
        if size not in self._measured_ms:
            return
        self._num_ticks += 1
        if self._num_ticks - self._last_tick.get(size, 0) > RECENT:
            self._ticks_ms.pop(size, None)
        self._last_tick[size] = self._num_ticks
        self._ticks_ms.setdefault(size, deque(maxlen=WINDOW)).append(tick_ms)
        self._slowdowns.append(tick_ms / self._measured_ms[size])
        self._update()

    def _update(self) -> None:
        slowdown = self.slowdown
        self._now_ms = {size: self._of(size, slowdown) for size in self._measured_ms}

    def _of(self, size: int, slowdown: float) -> float:
        ticks_ms = self._ticks_ms.get(size, ())
        if len(ticks_ms) >= FEWEST and self._num_ticks - self._last_tick[size] <= RECENT:
            return median(ticks_ms)
        return self._measured_ms[size] * slowdown
