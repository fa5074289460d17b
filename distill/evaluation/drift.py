"""Does a world stay itself for thousands of frames? Owns the drift figure.

For brightness, contrast, sharpness and motion of a batch of long clips: the worst of ten windows' deviation from the
real mean, divided by the 95th percentile of the same deviation of equal batches of real clips from the mean of the
real clips not among them. Both distances are between a batch and the mean of clips it has no part in, so a perfect
world stays below 1 nineteen times of twenty in each statistic (in the largest of the four a little less often). The
codec's own share is the same figure of real clips that went through the codec and back.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from distill.evaluation.quality import sharpness

STATISTICS = ("brightness", "contrast", "sharpness", "motion")
NUM_WINDOWS = 10
LEAST_DEVIATION = 0.01
"""Grey levels: a statistic that real clips hardly vary in is not divided by less."""


def frame_statistics(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A clip uint8 `t h w 3` → `t 4` in the order of `STATISTICS`; the first frame's motion is the second's."""
    x = frames.astype(np.float32)
    flat = x.reshape(len(x), -1)
    motion = np.abs(flat[1:] - flat[:-1]).mean(1)
    sharp = sharpness(torch.from_numpy(frames)[None])[0].numpy()
    figures = [flat.mean(1), flat.std(1), sharp, np.concatenate([motion[:1], motion])]
    return np.stack(figures, axis=1).astype(np.float64)


def clip_statistics(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """One long clip uint8 `t h w 3` → window means `10 4`, in the order of `STATISTICS`."""
    return np.stack([part.mean(0) for part in np.array_split(frame_statistics(frames), NUM_WINDOWS)])


def worst_deviation(batch: NDArray[np.float64], real_mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clips' window means `n 10 4` → `4`: over windows, the largest distance of the batch's mean from the real one."""
    deviation: NDArray[np.float64] = np.abs(batch.mean(axis=0) - real_mean).max(axis=0)
    return deviation


def drift_figures(
    generated: NDArray[np.float64],
    real: NDArray[np.float64],
    rebuilt: NDArray[np.float64] | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """generated `n 10 4`, real `m 10 4` with m well above n, rebuilt `n 10 4`: the first n real clips through the
    codec. Keys: one ratio per statistic, and `drift_max`; with `rebuilt` also `drift_codec_…`."""
    rng = np.random.default_rng(seed)
    among_real = []
    for _ in range(draws):
        order = rng.permutation(len(real))
        pick, rest = order[: len(generated)], order[len(generated) :]
        among_real.append(worst_deviation(real[pick], real[rest].mean(axis=(0, 1))))
    usual = np.maximum(np.quantile(among_real, 0.95, axis=0), LEAST_DEVIATION)
    figures = _named("drift", worst_deviation(generated, real.mean(axis=(0, 1))) / usual)
    if rebuilt is None:
        return figures
    return figures | _named("drift_codec", worst_deviation(rebuilt, real[len(rebuilt) :].mean(axis=(0, 1))) / usual)


def _named(prefix: str, ratios: NDArray[np.float64]) -> dict[str, float]:
    figures = {f"{prefix}_{name}": float(value) for name, value in zip(STATISTICS, ratios, strict=True)}
    return figures | {f"{prefix}_max": max(figures.values())}
