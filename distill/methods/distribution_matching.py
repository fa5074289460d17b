"""Distribution matching distillation: the generator's gradient from two scores. Pure functions.

DMD (arXiv:2311.18828, eq. 7 and 8; DMD2, arXiv:2405.14867): ∇KL ≈ E[w_t (s_fake − s_real) dx/dθ]; with x0
predictions the difference of scores is a difference of denoised clips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.methods.flow_matching import flow_matching_loss, frame_levels
from distill.methods.network import Network, predict_x0
from world.schedule import add_noise
from world.transformer import Conditioning

NORMALISER_FLOOR = 1e-3


def dmd_gradient(
    teacher: Network, critic: Network, x: Tensor, noise: Tensor, sigma: Tensor, frames: Tensor, cond: Conditioning
) -> Tensor:
    """The normalised gradient at generated clips x `b f c h w`, zero outside `frames` (bool `b f`, the generated ones).

    Noise level sigma is shared by a clip's generated frames (`b`) or each frame's own (`b f`); the others are given
    clean. Divided per sample by
    the mean |x − x0_real| over generated frames (arXiv:2311.18828, eq. 8), clamped from below.
    """
    with torch.no_grad():
        level = frame_levels(sigma, frames)
        noisy = add_noise(x, noise, level)
        real = predict_x0(teacher, noisy, level, cond)
        fake = predict_x0(critic, noisy, level, cond)
        mask = frames[:, :, None, None, None].to(x.dtype)
        count = mask.sum(dim=(1, 2, 3, 4)).clamp_min(1) * x[0, 0].numel()
        scale = ((x - real).abs() * mask).sum(dim=(1, 2, 3, 4)) / count
        gradient = (fake - real) * mask / scale.clamp_min(NORMALISER_FLOOR)[:, None, None, None, None]
        return torch.nan_to_num(gradient)


def dmd_loss(x: Tensor, gradient: Tensor, frames: Tensor) -> Tensor:
    """½‖x − sg(x − g)‖², whose gradient in x is g over the number of elements in `frames`; computed in float64."""
    target = (x.double() - gradient.double()).detach()
    error = (x.double() - target).square() * frames[:, :, None, None, None]
    return 0.5 * error.sum() / (frames.sum() * x[0, 0].numel())


def critic_loss(critic: Network, x: Tensor, noise: Tensor, sigma: Tensor, frames: Tensor, cond: Conditioning) -> Tensor:
    """The critic's denoising loss on the generator's own clips."""
    return flow_matching_loss(critic, x.detach(), noise, sigma, frames, cond)
