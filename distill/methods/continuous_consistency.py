"""Continuous-time consistency models, sCT and sCD (arXiv:2410.11081). Pure functions, on TrigFlow's scale.

x_t = cos t·x0 + sin t·noise; F is the network's dx/dt; f = cos t·x_t − sin t·F is its x0. Along a trajectory f must
not change: the loss drives the tangent cos t·df/dt, an exact forward-mode derivative of the network, to zero. The data
is assumed to have unit standard deviation (σ_d = 1), as latents have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.adapters import trig_noise, trig_velocity
from distill.methods.jvp import jvp
from distill.methods.network import Network, predict_velocity
from world.model.schedule import expand, flow_sigma
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinuousConfig:
    """mean, std: of log tan t (P_mean, P_std of arXiv:2410.11081, table 5). normaliser: c of g / (‖g‖ + c), or None for
    unnormalised tangents. warm_up_steps: steps over which the tangent's second term is faded in (§4.1)."""

    mean: float = -1.0
    std: float = 1.4
    normaliser: float | None = 0.1
    warm_up_steps: int = 10_000


def trig_times(batch: int, generator: torch.Generator, config: ContinuousConfig) -> Tensor:
    """Draw t in (0, π/2), `b`."""
    return torch.atan(torch.exp(torch.randn(batch, generator=generator) * config.std + config.mean))


def warm_up(step: int, config: ContinuousConfig) -> float:
    """Return the factor r of the tangent warm-up at a training step."""
    return min(1.0, step / config.warm_up_steps) if config.warm_up_steps else 1.0


def continuous_consistency_loss(
    student: Network,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    cond: Conditioning,
    config: ContinuousConfig,
    *,
    teacher: Network | None = None,
    share: float = 1.0,
    log_weight: Tensor | None = None,
) -> Tensor:
    """Return the loss of arXiv:2410.11081, eq. 8, with the teacher's dx/dt (sCD) or that of the data pair (sCT).

    x0, noise `b …`; t `b` in (0, π/2). share: r of the warm-up. log_weight: w `b` of the adaptive weighting
    e^w·loss − w, learned together with the student.
    """
    x = trig_noise(x0, noise, t)
    cos, sin = expand(t.cos(), x), expand(t.sin(), x)
    with torch.no_grad():
        rate = cos * noise - sin * x0 if teacher is None else trig_prediction(teacher, x, t, cond)
        fixed, change = jvp(lambda y, s: trig_prediction(student, y, s, cond), (x, t), (rate, torch.ones_like(t)))
        tangent = -(cos.square()) * (fixed - rate) - share * cos * sin * (x + change)
        if config.normaliser is not None:
            norm = tangent.flatten(1).norm(dim=1) / math.sqrt(tangent[0].numel())
            tangent = tangent / expand(norm + config.normaliser, tangent)
    error = (trig_prediction(student, x, t, cond) - fixed - tangent).flatten(1).square().mean(1)
    return (error if log_weight is None else log_weight.exp() * error - log_weight).mean()


def trig_prediction(network: Network, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """Return F(x_t, t) of a flow network."""
    sigma = flow_sigma(t.cos(), t.sin())
    return trig_velocity(predict_velocity(network, x / expand(t.cos() + t.sin(), x), sigma, cond), x, t)
