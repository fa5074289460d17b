"""Noise levels and every conversion between x0, noise and velocity. Pure functions; knows no network.

The flow scale: x_sigma = (1 − sigma)·x0 + sigma·noise with sigma in [0, 1], velocity = noise − x0 (rectified flow,
arXiv:2209.03003, eq. 1; flow matching, arXiv:2210.02747). Models of other scales are adapted by scaling: a model that
adds noise as x = a·x0 + s·noise has sigma = s / (a + s) and x_sigma = x / (a + s).
Shapes: `sigma` broadcasts against latents from the left (`b f` against `b f c h w`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def expand(sigma: Tensor, like: Tensor) -> Tensor:
    """Return `sigma` with trailing singleton dimensions, so that it broadcasts against `like`, on that device."""
    return sigma.reshape(sigma.shape + (1,) * (like.ndim - sigma.ndim)).to(like)


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return x_sigma = (1 − sigma)·x0 + sigma·noise."""
    s = expand(sigma, x0)
    return (1 - s) * x0 + s * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    return noise - x0


def x0_from_velocity(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Return x0 = x_sigma − sigma·velocity."""
    return x - expand(sigma, x) * v


def noise_from_velocity(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Return noise = x_sigma + (1 − sigma)·velocity."""
    return x + (1 - expand(sigma, x)) * v


def velocity_from_x0(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """Return velocity = (x_sigma − x0) / sigma; sigma must be positive."""
    return (x - x0) / expand(sigma, x)


def score_from_velocity(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Return ∇ log p_sigma(x) = −noise / sigma; sigma must be positive."""
    return -noise_from_velocity(x, v, sigma) / expand(sigma, x)


def flow_sigma(signal: Tensor, noise: Tensor) -> Tensor:
    """Return sigma of a model that mixes signal·x0 + noise·n (EDM: 1, s; VP: √ᾱ, √(1−ᾱ); TrigFlow: cos t, sin t)."""
    return noise / (signal + noise)


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1: shift·sigma / (1 + (shift − 1)·sigma) (arXiv:2403.03206, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sampling_sigmas(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return `num_steps + 1` noise levels from 1 down to 0, evenly spaced before the shift. float64."""
    if num_steps < 1:
        raise ValueError(f"num_steps {num_steps}: must be at least 1")
    return shift_sigma(torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64), shift)


@cache
def sampling_levels(num_steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Return `sampling_sigmas` as numbers."""
    return tuple(float(level) for level in sampling_sigmas(num_steps, shift))


def euler_step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Take one Euler step of the probability-flow ODE dx/dsigma = velocity."""
    return x + expand(sigma_next - sigma, x) * v
