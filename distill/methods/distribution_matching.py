"""Distribution matching distillation: the generator's gradient from two scores. Pure functions.

DMD (arXiv:2311.18828, eq. 7 and 8; DMD2, arXiv:2405.14867): ∇KL ≈ E[w_t (s_fake − s_real) dx/dθ]. In terms of x0
predictions the difference of the scores is a difference of denoised clips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.methods.flow_matching import denoising_loss, flow_matching_loss, frame_levels
from distill.methods.network import Network, predict_x0
from distill.methods.sampling import randn_like, sampled
from world.model.schedule import add_noise, expand
from world.model.transformer import Conditioning

NORMALISER_FLOOR = 1e-3


def dmd_gradient(
    teacher: Network,
    critic: Network,
    x: Tensor,
    noise: Tensor,
    sigma: Tensor,
    frames: Tensor | None,
    cond: Conditioning,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the normalised gradient at generated samples x `b …` or clips `b f …`.

    frames bool `b f`: the generated frames of a clip; the others are given clean, and the gradient is zero there.
    sigma: one noise level for all generated frames of a clip (`b`) or one per frame (`b f`). The gradient of each
    sample is divided by its mean |x − x0_real| over the generated part (arXiv:2311.18828, eq. 8), clamped from below.
    weight `b`: factor of each sample (see `f_distill`).
    """
    with torch.no_grad():
        level = sigma if frames is None else frame_levels(sigma, frames)
        noisy = add_noise(x, noise, level)
        real = predict_x0(teacher, noisy, level, cond)
        fake = predict_x0(critic, noisy, level, cond)
        mask = torch.ones_like(x) if frames is None else expand(frames, x).expand_as(x)
        scale = ((x - real).abs() * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)
        gradient = (fake - real) * mask / expand(scale.clamp_min(NORMALISER_FLOOR), x)
        return torch.nan_to_num(gradient if weight is None else expand(weight, x) * gradient)


def dmd_loss(x: Tensor, gradient: Tensor, frames: Tensor | None = None) -> Tensor:
    """Return ½‖x − sg(x − g)‖², computed in float64.

    Its gradient in x is g divided by the number of elements in `frames` (all elements if None).
    """
    target = (x.double() - gradient.double()).detach()
    error = (x.double() - target).square()
    if frames is None:
        return 0.5 * error.mean()
    return 0.5 * (error * expand(frames, error)).sum() / (frames.sum() * x[0, 0].numel())


def critic_loss(
    critic: Network, x: Tensor, noise: Tensor, sigma: Tensor, frames: Tensor | None, cond: Conditioning
) -> Tensor:
    """Return the critic's denoising loss on the generator's samples or clips."""
    if frames is None:
        return denoising_loss(critic, x.detach(), noise, sigma, cond)
    return flow_matching_loss(critic, x.detach(), noise, sigma, frames, cond)


def backward_simulated(
    student: Network, noise: Tensor, cond: Conditioning, levels: Tensor, stage: int, generator: torch.Generator
) -> Tensor:
    """Return a few-step student's input at its step `stage`, `b …`: its own x0 so far, noised to that step's level.

    DMD2, §4.5. noise `b …`: the starting point; levels fall from 1 to 0.
    """
    if stage == 0:
        return noise
    with torch.no_grad():
        x0 = sampled(student, noise, cond, levels[: stage + 1], generator)
    return add_noise(x0, randn_like(noise, generator), levels[stage].to(noise).expand(len(noise)))
