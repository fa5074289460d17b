"""To which batch size a step is padded. Owns the decision alone: no tensors, no clocks."""

from __future__ import annotations

from collections.abc import Sequence

from server.engine.scheduler import bucket_for

MIN_GAIN = 1.05
"""A step is padded only if the larger size is this much faster."""


class Padding:
    """The size to pad to, by the size of a batch up to `max_batch`: the next of `buckets`, if there are any; else the
    fastest of the sizes up to the next of `worthwhile`, such as those that can be compiled.

    num_spare: how many rows of padding that takes at most.
    """

    def __init__(self, max_batch: int, buckets: Sequence[int], worthwhile: Sequence[int] = ()) -> None:
        self._buckets = tuple(buckets)
        self._next = {size: bucket_for(size, self._buckets or worthwhile) for size in range(1, max_batch + 1)}
        self._step_ms: dict[int, float] = {}
        self.num_spare = max(bucket - size for size, bucket in self._next.items())

    def note(self, size: int, step_ms: float) -> None:
        """Note how long an unpadded step of `size` takes."""
        self._step_ms[size] = step_ms

    def padded(self, size: int) -> int:
        """Return the size to run a step of `size` sessions with."""
        if self._buckets or size not in self._step_ms:
            return self._next[size] if self._buckets else size
        fastest = min(range(size, self._next[size] + 1), key=lambda other: self._step_ms.get(other, float("inf")))
        return fastest if self._step_ms[fastest] * MIN_GAIN < self._step_ms[size] else size
