"""Distances between samples: sliced Wasserstein, mode weights, Fréchet. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def sliced_wasserstein(a: Tensor, b: Tensor, *, num_directions: int = 128, seed: int = 0) -> float:
    """Return the 1-Wasserstein distance of projections, averaged over directions; a, b `n d` of equal shape."""
    if a.shape != b.shape:
        raise ValueError(f"samples {tuple(a.shape)} and {tuple(b.shape)}: pass equally many points of the same size")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(a.shape[1], num_directions, generator=generator).to(a)
    directions = directions / directions.norm(dim=0)
    ordered_a, ordered_b = ((x @ directions).sort(dim=0).values for x in (a, b))
    return float((ordered_a - ordered_b).abs().mean())


def mode_variation(modes: Tensor, weights: Tensor) -> float:
    """Return the total variation between the shares of modes, int64 `n`, and their true weights `k`."""
    shares = torch.bincount(modes, minlength=len(weights)).to(weights) / len(modes)
    return float(0.5 * (shares - weights).abs().sum())


def frechet(a: Tensor, b: Tensor) -> float:
    """Return ‖µa − µb‖² + tr(Ca + Cb − 2(Ca·Cb)^½) of features `n d` in float64 (arXiv:1706.08500, eq. 6)."""
    a, b = a.double(), b.double()
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    # tr (Ca·Cb)^½ is the sum of the square roots of the product's eigenvalues, which are real and non-negative
    roots = torch.linalg.eigvals(ca @ cb).real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * roots)
