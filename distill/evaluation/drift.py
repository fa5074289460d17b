"""Does a world stay itself for thousands of frames? Owns the drift figure.

For brightness, contrast, sharpness and motion of a batch of long clips: the worst of ten windows' deviation from the
real mean, divided by the 95th percentile of the same deviation among equal batches of real clips. 1 means that a
generated batch strays no further than real batches do.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from distill.evaluation.quality import sharpness

STATISTICS = ("brightness", "contrast", "sharpness", "motion")
NUM_WINDOWS = 10


def clip_statistics(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """One long clip uint8 `t h w 3` → window means `10 4`, in the order of `STATISTICS`."""

    x = frames.astype(np.float32)
    flat = x.reshape(len(x), -1)
    motion = np.abs(flat[1:] - flat[:-1]).mean(1)
    sharp = sharpness(torch.from_numpy(frames)[None])[0].numpy()
    per_frame = np.stack([flat.mean(1), flat.std(1), sharp, np.concatenate([motion[:1], motion])], axis=1)
    return np.stack([part.mean(0) for part in np.array_split(per_frame, NUM_WINDOWS)]).astype(np.float64)


def worst_deviation(batch: NDArray[np.float64], real_mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clips' window means `n 10 4` → `4`: over windows, the largest distance of the batch's mean from the real one."""
    deviation: NDArray[np.float64] = np.abs(batch.mean(axis=0) - real_mean).max(axis=0)
    return deviation


def drift_figures(
    generated: NDArray[np.float64], real: NDArray[np.float64], *, draws: int = 2000, seed: int = 0
) -> dict[str, float]:
    """generated `n 10 4`, real `m 10 4` with m well above n. Keys: one ratio per statistic, and `drift_max`."""
    rng = np.random.default_rng(seed)
    real_mean = real.mean(axis=(0, 1))
    picks = np.stack([rng.choice(len(real), size=len(generated), replace=False) for _ in range(draws)])
    among_real = np.stack([worst_deviation(real[pick], real_mean) for pick in picks])
    ratios = worst_deviation(generated, real_mean) / np.quantile(among_real, 0.95, axis=0)
    figures = {f"drift_{name}": float(value) for name, value in zip(STATISTICS, ratios, strict=True)}
    return figures | {"drift_max": max(figures.values())}
