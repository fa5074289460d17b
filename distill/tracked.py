"""What a world keeps track of beyond its pictures. Owns how the oracle's numbers become channels; knows no environment.

A causal model with a short window forgets where it stands once the picture no longer shows it: before a wall, any
room may be behind. So the numbers of the oracle that an environment names are part of what the model predicts. It is
told the truth in training only; a player's world starts from the codec's estimate.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.environments.base import EnvironmentSpec


def num_tracked_channels(spec: EnvironmentSpec) -> int:
    return sum(2 * len(tracked.periods) for tracked in spec.tracked)


def tracked_channels(spec: EnvironmentSpec, oracle: NDArray[np.float32]) -> Tensor:
    """The oracle's numbers `t n` as channels of unit variance: float32 `t k`, sine and cosine of each period."""
    waves = [
        np.sqrt(2) * wave(2 * np.pi * oracle[:, spec.oracle_names.index(tracked.name)].astype(np.float64) / period)
        for tracked in spec.tracked
        for period in tracked.periods
        for wave in (np.sin, np.cos)
    ]
    return torch.from_numpy(np.stack(waves, axis=1).astype(np.float32))
