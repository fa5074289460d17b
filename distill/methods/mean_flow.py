"""MeanFlow (arXiv:2505.13447): the average velocity between two levels, from data or from a teacher. Pure functions.

u(x, r, t) is the mean velocity over [r, t] along a trajectory, so one evaluation leads from t to r. It satisfies
u = v − (t − r)·du/dt; the right-hand side, with an exact forward-mode derivative of the network, is the target. The
network is called with sigma = t and sigma_next = r.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.jvp import Mode, jvp
from distill.methods.network import Network, predict_velocity
from distill.methods.sampling import logit_normal_sigma
from world.model.schedule import add_noise, expand, velocity
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanFlowConfig:
    """mean, std: of two logit-normal draws, of which the greater is t (arXiv:2505.13447, §4.3). apart_share: share of
    the samples with r ≠ t. power, floor: p and c of the adaptive weight 1 / (‖Δ‖² + c)^p (eq. 22). jvp_mode: see
    `jvp`; networks whose attention has no forward mode need "reverse"."""

    mean: float = -0.4
    std: float = 1.0
    apart_share: float = 0.25
    power: float = 1.0
    floor: float = 1e-3
    jvp_mode: Mode = "forward"


def mean_flow_levels(batch: int, generator: torch.Generator, config: MeanFlowConfig) -> tuple[Tensor, Tensor]:
    """Draw (t, r) with r ≤ t, each `b`."""
    a, b = (logit_normal_sigma(batch, generator, mean=config.mean, std=config.std) for _ in range(2))
    t, r = torch.maximum(a, b), torch.minimum(a, b)
    apart = torch.rand(batch, generator=generator) < config.apart_share
    return t, torch.where(apart, r, t)


def mean_flow_loss(
    student: Network,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    r: Tensor,
    cond: Conditioning,
    config: MeanFlowConfig,
    *,
    teacher: Network | None = None,
) -> Tensor:
    """Return the adaptively weighted loss of arXiv:2505.13447, eq. 9 to 11.

    The instantaneous velocity is the teacher's, or noise − x0 without a teacher. x0, noise `b …`; r ≤ t, `b`, or `b f`
    for clips `b f c h w`.
    """
    x = add_noise(x0, noise, t)
    with torch.no_grad():
        v = velocity(x0, noise) if teacher is None else predict_velocity(teacher, x, t, cond)
        _, change = jvp(
            lambda y, s: predict_velocity(student, y, s, cond, sigma_next=r),
            (x, t),
            (v, torch.ones_like(t)),
            mode=config.jvp_mode,
        )
        goal = v - expand(t - r, x) * change
    error = (predict_velocity(student, x, t, cond, sigma_next=r) - goal).flatten(1).square().sum(1)
    return (error / (error.detach() + config.floor) ** config.power).mean()
