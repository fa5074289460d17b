"""Small videos for tests: written, copied and measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from distill.data.clips import Dataset

Importer = Callable[..., Dataset]


def write(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    times: Sequence[int] | None = None,
    *,
    per_second: int = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
    container_format: str | None = None,
    setup: Callable[[Any], None] = lambda _: None,
) -> None:
    """Write pictures `h w 3` or `h w 4` at `times`, in units of 1 / per_second (default: one each)."""
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=per_second)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.time_base = pix_fmt, Fraction(1, per_second)
        setup(stream)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.shape[2] == 3 else "rgba")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, per_second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def noise(num: int, size: int = 64) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (num, size, size, 3)).astype(np.uint8))


def twice(folder: Path, suffix: str, *args: Any, **options: Any) -> None:
    """Write the same video as `one` and `two`."""
    write(folder / f"one{suffix}", *args, **options)
    shutil.copy(folder / f"one{suffix}", folder / f"two{suffix}")


def lengths(dataset: Dataset, split: str = "train") -> list[int]:
    return [len(episode) for episode in dataset.episodes(split)]
