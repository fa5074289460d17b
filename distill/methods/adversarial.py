"""Adversarial losses shared by DMD2, f-distill and LADD: functions of a discriminator's logits, and the R1 penalty.

Pure functions. A discriminator is any function of noised samples; DMD2 puts a head on the critic's features, LADD on
the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.methods.sampling import randn_like

Discriminator = Callable[[Tensor, Tensor], Tensor]
"""(x at noise level sigma `b …`, sigma `b`) → logits `b …`."""


def generator_loss(fake: Tensor) -> Tensor:
    """Return the non-saturating loss E softplus(−d(fake)) (arXiv:1406.2661, §3; DMD2, arXiv:2405.14867, eq. 4)."""
    return F.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return E softplus(−d(real)) + E softplus(d(fake)), whose minimum is at d = log p_real − log p_fake."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """Return −E d(fake) (arXiv:1705.02894; LADD, arXiv:2403.12015)."""
    return -fake.mean()


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return E max(0, 1 − d(real)) + E max(0, 1 + d(fake))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def r1_penalty(discriminator: Discriminator, real: Tensor, sigma: Tensor) -> Tensor:
    """Return ½·E‖∇ₓ d(real)‖², differentiable (arXiv:1801.04406, eq. 9). real: at level sigma, `b …`.

    Of several logits per sample, the mean of their penalties, as the losses average over logits; each of them takes a
    backward pass.
    """
    x = real.detach().requires_grad_(True)
    logits = discriminator(x, sigma).reshape(len(x), -1)
    penalties = []
    for logit in logits.unbind(1):
        (slope,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
        penalties.append(0.5 * slope.flatten(1).square().sum(1).mean())
    return torch.stack(penalties).mean()


def approximate_r1(
    discriminator: Discriminator, real: Tensor, sigma: Tensor, generator: torch.Generator, *, std: float = 0.01
) -> Tensor:
    """Return ½·E(d(x + std·n) − d(x))² / std², which approaches `r1_penalty` as std → 0 and needs no second derivative.

    APT (arXiv:2501.08316, eq. 4), scaled by 1/std². Both terms use the same noised x; with fresh noise the difference
    would measure the noise.
    """
    nudge = std * randn_like(real, generator)
    change = discriminator(real + nudge, sigma) - discriminator(real, sigma)
    return 0.5 * (change / std).square().mean()
