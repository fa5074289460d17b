"""Figures of every world: PSNR curves against truth and baselines, sharpness, bootstrap bounds. Pure functions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.statistics import sharpness

FRAMES = (1, 2, 4, 8, 16, 32, 64)


def psnr(frames: Tensor, truth: Tensor) -> Tensor:
    """Return the PSNR per clip and frame: uint8 `b t h w 3` → dB `b t`."""
    error = (frames.float() - truth.float()).square().flatten(2).mean(-1).clamp_min(0.05)
    return 10 * torch.log10(255.0**2 / error)


def curve(values: Tensor) -> dict[str, float]:
    """Return the mean over clips at those frames of `FRAMES` (counted from 1) that exist."""
    return {str(f): round(float(values[:, f - 1].mean()), 3) for f in FRAMES if f <= values.shape[1]}


def lower_bound(
    differences: Tensor, episode: NDArray[np.int64], *, draws: int = 2000, level: float = 0.05, seed: int = 0
) -> float:
    """Return the lower bootstrap bound of the mean over clips: the `level` quantile of resampled means.

    episode: each clip's stream. Clips of one stream are correlated, so streams are resampled first, then the clips of
    each.
    """
    _, number, counts = np.unique(episode, return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    offsets = np.cumsum(counts) - counts
    values: NDArray[np.float64] = differences.double().numpy()[order]  # stream by stream
    rng = np.random.default_rng(seed)
    streams = rng.integers(len(counts), size=(draws, len(counts)))
    size = counts[streams][..., None]  # draws, streams, 1
    place = (rng.random((draws, len(counts), int(counts.max()))) * size).astype(np.int64)
    drawn = values[offsets[streams][..., None] + place]
    used = np.arange(drawn.shape[2]) < size
    means = (drawn * used).sum(axis=(1, 2)) / used.sum(axis=(1, 2))
    return float(np.quantile(means, level))


def trivial_gains(
    truth: Tensor, context_last: Tensor, frames: Tensor, episode: NDArray[np.int64]
) -> dict[str, dict[str, object]]:
    """Return the PSNR gain of `frames` over the best of three predictions without actions, at frames 4 and 16.

    The predictions are the last picture, its mean colour, and the mean of all true pictures of these very clips (which
    gives that one an advantage).
    """
    own = psnr(frames, truth)
    colour = context_last.float().mean(dim=(1, 2), keepdim=True).expand_as(context_last)
    mean = truth.float().mean(dim=(0, 1)).expand_as(context_last)
    trivial = {"last": context_last, "mean_colour": colour, "mean_picture": mean}
    curves = {name: psnr(picture[:, None].expand_as(truth), truth) for name, picture in trivial.items()}
    gains: dict[str, dict[str, object]] = {}
    for f in (4, 16):
        if f <= truth.shape[1]:
            best = max(curves, key=lambda name: float(curves[name][:, f - 1].mean()))
            gain = (own - curves[best])[:, f - 1]
            gains[f"psnr_gain_trivial_{f}"] = {**bounded(gain, episode), "against": best}
    return gains


def bounded(values: Tensor, episode: NDArray[np.int64]) -> dict[str, float]:
    """Return the mean over clips and its lower bound."""
    return {"mean": round(float(values.mean()), 3), "lower": round(lower_bound(values, episode), 3)}


def quality_figures(
    truth: Tensor, context_last: Tensor, frames: Tensor, other: Tensor | None, episode: NDArray[np.int64]
) -> dict[str, object]:
    """Return the figures of free-running clips uint8 `b t h w 3`, compared with the truth and with copying.

    frames: generated under the true actions; other: under another clip's actions, if there is one. context_last: the
    last context frame `b h w 3`. episode: each clip's stream.
    """
    own = psnr(frames, truth)
    copied = psnr(context_last[:, None].expand_as(truth), truth)
    ratio = sharpness(frames).mean(0) / sharpness(truth).mean(0).clamp_min(1e-6)
    figures: dict[str, object] = {
        "psnr": curve(own),
        "psnr_copy_last": curve(copied),
        "sharpness_ratio": {str(f): round(float(ratio[f - 1]), 3) for f in FRAMES if f <= len(ratio)},
        **trivial_gains(truth, context_last, frames, episode),
    }
    if other is None:
        return figures
    others = psnr(other, truth)
    figures["psnr_other_actions"] = curve(others)
    for f in (4, 8, 16):
        if f <= truth.shape[1]:
            figures[f"psnr_gain_other_{f}"] = bounded((own - others)[:, f - 1], episode)
    return figures
