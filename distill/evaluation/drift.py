"""The drift figure: does a world stay itself for thousands of frames?

A batch of long clips is described by its brightness, contrast, sharpness and motion (`distill.data.statistics`) in
ten windows. A statistic's drift is a ratio. Numerator: the batch's largest deviation, over the windows, from the mean
of real clips. Denominator: the 95th percentile of the same deviation for equally large batches of real clips, each
compared with the mean of the real clips outside the batch. No batch is ever compared with a mean that it is part of, so
a perfect world stays below 1 nineteen times out of twenty in each statistic (slightly less often in the largest of the
four). The codec's own share is the same figure for real clips passed through the codec and back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distill.data.statistics import STATISTICS

LEAST_DEVIATION = 0.01
"""Lower bound of the denominator, in grey levels, for statistics that hardly vary between real clips."""


def worst_deviation(batch: NDArray[np.float64], real_mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest distance, over windows, of the batch's mean from the real mean: clips `n 10 4` → `4`."""
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
    """Return one ratio per statistic and `drift_max`; with `rebuilt` also `drift_codec_…`.

    All arguments are window statistics: generated `n 10 4`; real `m 10 4` with m well above n; rebuilt `n 10 4`, the
    first n real clips through the codec.
    """
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
