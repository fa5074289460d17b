"""Statistics of pictures: brightness, contrast, sharpness and motion. Pure functions; knows no model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STATISTICS = ("brightness", "contrast", "sharpness", "motion")
NUM_WINDOWS = 10


def sharpness(frames: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels: uint8 `b t h w 3` → `b t`."""
    x = frames.float()
    down = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(2).mean(-1)
    across = (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().flatten(2).mean(-1)
    return (down + across) / 2


def frame_statistics(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return each frame's statistics in the order of `STATISTICS`: a clip uint8 `t h w 3` → `t 4`.

    The first frame has no predecessor; its motion is set to the second frame's.
    """
    x = frames.astype(np.float32)
    flat = x.reshape(len(x), -1)
    motion = np.abs(flat[1:] - flat[:-1]).mean(1)
    sharp = sharpness(torch.from_numpy(frames)[None])[0].numpy()
    figures = [flat.mean(1), flat.std(1), sharp, np.concatenate([motion[:1], motion])]
    return np.stack(figures, axis=1).astype(np.float64)


def clip_statistics(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean statistics of ten consecutive windows of a long clip: uint8 `t h w 3` → `10 4`."""
    return np.stack([part.mean(0) for part in np.array_split(frame_statistics(frames), NUM_WINDOWS)])
