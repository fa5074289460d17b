"""Consistency training and consistency distillation. Pure functions.

Consistency models (arXiv:2303.01469), with pseudo-Huber distance (arXiv:2310.14189, eq. 7) and the shrinking step of
easy consistency tuning (arXiv:2406.14548, §3). The student's x0 at sigma is trained towards its own x0, without
gradient, at a lower level of the same trajectory. That lower point is known exactly from a pair of data and noise
(training), or reached by one step of a teacher (distillation). The boundary condition holds by construction: at
sigma = 0, x0 = x − sigma·velocity is x itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.network import Network, predict_velocity, predict_x0
from world.model.schedule import add_noise, euler_step, expand
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyLossConfig:
    """huber: c of the distance √(d² + c²) − c; 0 for d²/2 (arXiv:2406.14548 starts from the squared distance).
    base, sharpness, slope: q, k and b of the step's schedule (arXiv:2406.14548, §3.2); the paper's b = 1, for data of
    deviation 0.5, is 0.5 for unit deviation, where t is twice as large at the same ratio. least_step: the smallest
    step, as a share of the level."""

    huber: float = 0.0
    base: float = 2.0
    sharpness: float = 8.0
    slope: float = 0.5
    least_step: float = 1e-3


def next_level(sigma: Tensor, stage: int, config: ConsistencyLossConfig) -> Tensor:
    """Return the lower level, at least 0, that is compared with sigma in (0, 1) at this stage of the schedule.

    r = t·(1 − n(t) / q^(stage + 1)) with n(t) = 1 + k·sigmoid(−b·t), on the scale t = sigma / (1 − sigma)
    (arXiv:2406.14548, eq. 13).
    """
    t = sigma / (1 - sigma)
    share = (1 + config.sharpness * torch.sigmoid(-config.slope * t)) / config.base ** (stage + 1)
    r = t * (1 - share.clamp(config.least_step, 1.0))
    return r / (1 + r)


def consistency_training_loss(
    student: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    cond: Conditioning,
    config: ConsistencyLossConfig,
) -> Tensor:
    """Return the loss with both points made from the same data and noise (arXiv:2303.01469, eq. 10).

    x0, noise `b …`; sigma > sigma_next `b`.
    """
    lower = add_noise(x0, noise, sigma_next)
    return consistency_loss(student, student, add_noise(x0, noise, sigma), lower, sigma, sigma_next, cond, config)


def consistency_distillation_loss(
    student: Network,
    target: Network,
    teacher: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    cond: Conditioning,
    config: ConsistencyLossConfig,
) -> Tensor:
    """Return the loss with the lower point reached by one Euler step of `teacher` (arXiv:2303.01469, eq. 7).

    target: the student's moving average, or the student itself.
    """
    x = add_noise(x0, noise, sigma)
    with torch.no_grad():
        lower = euler_step(x, predict_velocity(teacher, x, sigma, cond), sigma, sigma_next)
    return consistency_loss(student, target, x, lower, sigma, sigma_next, cond, config)


def distance(error: Tensor, huber: float) -> Tensor:
    """Return the distance per sample `b` of errors `b …`: half the squared norm, or pseudo-Huber."""
    square = error.flatten(1).square().sum(1)
    return (square + huber**2).sqrt() - huber if huber > 0 else 0.5 * square


def consistency_loss(
    student: Network,
    target: Network,
    x: Tensor,
    lower: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    cond: Conditioning,
    config: ConsistencyLossConfig,
) -> Tensor:
    """Return the mean distance between the student's x0 at `x` and the target's x0 at `lower`, per unit of sigma."""
    with torch.no_grad():
        goal = predict_x0(target, lower, sigma_next, cond)
        goal = torch.where(expand(sigma_next, goal) > 0, goal, lower)  # a network need not be defined at sigma 0
    error = predict_x0(student, x, sigma, cond) - goal
    return (distance(error, config.huber) / (sigma - sigma_next)).mean()
