"""Clocks of videos: a data set's rate, breaks of a video's clock, and pictures at even times. Opens no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from distill.data.environments.base import Frame

MAX_FPS = 60.0
"""The highest rate that a world is played at."""
MAX_STILL_S = 10.0
"""The longest time that one picture may stand, in seconds; a longer one is a jump of the clock."""
NEAR_TYPICAL, SAME_RATE, SLACK = 0.25, 0.01, 0.1


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a video: its number in the file, its time in seconds, and the frame."""

    index: int
    time: float
    frame: Frame


@dataclass(slots=True)
class Resampling:
    """What happened to a video's pictures: how many were left out or shown again, and where its clock broke."""

    num_pictures: int = 0
    num_left_out: int = 0
    num_repeated: int = 0
    breaks: list[str] = field(default_factory=list)


def typical_rate(distances: Sequence[NDArray[np.float64]], stated: Sequence[float]) -> float:
    """Return the pictures per second of some videos: by the mean of the distances near their median.

    distances: between the timestamps of neighbouring pictures in seconds, by video; at least one is above 0.
    stated: rates that the files state, of which one is returned if it is the same within 1 %, since containers round
    timestamps (Matroska to milliseconds).
    """
    pooled = np.concatenate(distances)
    pooled = pooled[pooled > 0]
    median = np.median(pooled)
    rate = 1.0 / float(pooled[np.abs(pooled - median) <= NEAR_TYPICAL * median].mean())
    nearest = min(stated, key=lambda other: abs(other / rate - 1), default=rate)
    return nearest if abs(nearest / rate - 1) <= SAME_RATE else round(rate, 3)


def playable_rate(rate: float) -> float:
    """Return the rate divided by the smallest whole number that brings it down to `MAX_FPS`."""
    return rate / max(1, math.ceil(rate / MAX_FPS - SAME_RATE))


def unbroken(pictures: Iterable[Picture], found: Resampling) -> Iterator[Iterator[Picture]]:
    """Split a video where its clock runs backwards or jumps by more than `MAX_STILL_S`; note it in `found`."""
    part, before = 0, math.nan

    def part_of(picture: Picture) -> int:
        nonlocal part, before
        step, before = picture.time - before, picture.time
        if step < 0 or step > MAX_STILL_S:
            part += 1
            found.breaks.append(
                f"{'runs back' if step < 0 else 'jumps'} by {abs(step):.3g} s before picture {picture.index}"
            )
        return part

    for _, pieces in groupby(pictures, part_of):
        yield pieces


def resampled(pictures: Iterable[Picture], fps: float, found: Resampling) -> Iterator[tuple[Frame, int, int]]:
    """Yield (frame, first, last): the newest picture at each n / fps, and the numbers of the pictures since the last.

    A repeated picture has first = last. Timestamps may be rounded by up to a tenth of an output frame. Adds to the
    counts of `found`.
    """
    slack, count, start = SLACK / fps, 0, 0.0
    shown, first, newest = -1, 0, None
    for picture in pictures:
        found.num_pictures += 1
        if newest is None:
            start, first = picture.time, picture.index
        while newest is not None and count / fps < picture.time - start - slack:
            found.num_repeated += newest.index == shown
            yield newest.frame, min(first, newest.index), newest.index
            shown, count, first = newest.index, count + 1, newest.index + 1
        found.num_left_out += newest is not None and newest.index != shown
        newest = picture
    while newest is not None and count / fps <= newest.time - start + slack:
        found.num_repeated += newest.index == shown
        yield newest.frame, min(first, newest.index), newest.index
        shown, count, first = newest.index, count + 1, newest.index + 1
    found.num_left_out += newest is not None and newest.index != shown
