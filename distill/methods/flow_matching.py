"""Denoising losses of the teacher: flow matching of a clip after a clean prefix. Pure functions."""

from __future__ import annotations

from torch import Tensor

from distill.methods.network import Network, predict_velocity
from distill.methods.sampling import frame_mean
from world.model.patterns import AttentionPattern
from world.model.schedule import add_noise, velocity
from world.model.transformer import Conditioning


def frame_levels(sigma: Tensor, frames: Tensor) -> Tensor:
    """Return each frame's noise level `b f`: 0 outside `frames` (bool `b f`); sigma is per clip `b` or frame `b f`."""
    return (sigma if sigma.ndim == 2 else sigma[:, None]) * frames


def flow_matching_loss(
    network: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    frames: Tensor,
    cond: Conditioning,
    pattern: AttentionPattern | None = None,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Return E‖v_θ(x_sigma) − (noise − x0)‖² (arXiv:2210.02747, eq. 9) over `frames`; the others are given clean.

    x0, noise: `b f c h w`. sigma: one level for all of a clip's `frames` (`b`) or one per frame (`b f`). frames: bool
    `b f`. weights: `b f 1 h w` or None.
    """
    level = frame_levels(sigma, frames)
    predicted = predict_velocity(network, add_noise(x0, noise, level), level, cond, pattern)
    return frame_mean((predicted - velocity(x0, noise)).square(), frames, weights)


def denoising_loss(network: Network, x0: Tensor, noise: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
    """Return the flow-matching loss of data without frames: x0, noise `b …`, sigma `b`."""
    predicted = predict_velocity(network, add_noise(x0, noise, sigma), sigma, cond)
    return (predicted - velocity(x0, noise)).square().mean()
