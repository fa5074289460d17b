"""What a frame costs beside the model: processor time of the event loop, and encoding. Owns the measurement.

Everything that the event loop does counts, connections and other requests included, divided by the frames it sends: all
of it has to fit beside the ticks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from statistics import median

SAMPLE_S = 1.0
FEWEST = 20
"""Frames in a sample; with fewer, what the event loop does is not about frames."""
WINDOW = 10
"""Samples whose median counts."""
UNMEASURED_S = 0.0005
"""What a frame counts for until there is a sample."""
MOST_S = 0.002
"""The most that a frame counts for: a flood, which costs much and sends few frames, must not keep players out."""


class FrameCost:
    """The cost of one frame. `sent` is called on the event loop, `encoded` on the decode thread, the rest on any one
    thread."""

    def __init__(self) -> None:
        self._clock: int | None = None
        self._num_sent = 0
        self._encoded_s = 0.0
        self._before: tuple[float, float, float, int] | None = None
        self._samples: deque[float] = deque(maxlen=WINDOW)
        self._frame_s = UNMEASURED_S

    @property
    def frame_s(self) -> float:
        """Return seconds per frame as they are now."""
        return self._frame_s

    def watch(self) -> None:
        """Count the processor time of the calling thread, the event loop's, where the system tells it."""
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS and Windows
            self._clock = time.pthread_getcpuclockid(threading.get_ident())

    def sent(self, number: int) -> None:
        """Count frames that were sent."""
        self._num_sent += number

    def encoded(self, seconds: float) -> None:
        """Count time for encoding frames."""
        self._encoded_s += seconds

    def sample(self, now: float) -> None:
        """Take a sample, if the last one is `SAMPLE_S` old."""
        if self._before is not None and now < self._before[0] + SAMPLE_S:
            return
        after = (now, self._loop_s(), self._encoded_s, self._num_sent)
        if self._before is not None and (number := after[3] - self._before[3]) >= FEWEST:
            spent_s = after[1] - self._before[1] + after[2] - self._before[2]
            self._samples.append(min(spent_s / number, MOST_S))
            self._frame_s = median(self._samples)
        self._before = after

    def _loop_s(self) -> float:
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return 0.0
