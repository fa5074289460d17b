"""Figures every world has: PSNR curves against truth and baselines, sharpness, bootstrap bounds. Pure functions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRAMES = (1, 2, 4, 8, 16, 32, 64)


def psnr(frames: Tensor, truth: Tensor) -> Tensor:
    """Per clip and frame: uint8 `b t h w 3` → dB `b t`."""
    error = (frames.float() - truth.float()).square().flatten(2).mean(-1).clamp_min(0.05)
    return 10 * torch.log10(255.0**2 / error)


def sharpness(frames: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels: uint8 `b t h w 3` → `b t`."""
    x = frames.float()
    down = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(2).mean(-1)
    across = (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().flatten(2).mean(-1)
    return (down + across) / 2


def curve(values: Tensor) -> dict[str, float]:
    """Mean over clips at the frames of `FRAMES` (counted from 1) that exist."""
    return {str(f): round(float(values[:, f - 1].mean()), 3) for f in FRAMES if f <= values.shape[1]}


def lower_bound(differences: Tensor, *, draws: int = 2000, level: float = 0.05, seed: int = 0) -> float:
    """Lower bootstrap bound of the mean over clips: the `level` quantile of resampled means."""
    values: NDArray[np.float64] = differences.double().numpy()
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    return float(np.quantile(means, level))


def quality_figures(truth: Tensor, context_last: Tensor, frames: Tensor, other: Tensor) -> dict[str, object]:
    """Free-running clips under the true actions (`frames`) and another clip's (`other`), uint8 `b t h w 3`, against
    truth and against copying the last context frame `b h w 3`."""
    own, others = psnr(frames, truth), psnr(other, truth)
    copied = psnr(context_last[:, None].expand_as(truth), truth)
    ratio = sharpness(frames).mean(0) / sharpness(truth).mean(0)
    gains = {
        f"psnr_gain_other_{f}": {
            "mean": round(float((own - others)[:, f - 1].mean()), 3),
            "lower": round(lower_bound((own - others)[:, f - 1]), 3),
        }
        for f in (4, 8, 16)
        if f <= truth.shape[1]
    }
    return {
        "psnr": curve(own),
        "psnr_other_actions": curve(others),
        "psnr_copy_last": curve(copied),
        "sharpness_ratio": {str(f): round(float(ratio[f - 1]), 3) for f in FRAMES if f <= len(ratio)},
        **gains,
    }
