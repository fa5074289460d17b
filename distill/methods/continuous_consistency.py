"""Continuous-time consistency models, sCT and sCD (arXiv:2410.11081). Pure functions, on TrigFlow's scale.

x_t = cos t·x0 + sin t·noise; F is the network's dx/dt; f = cos t·x_t − sin t·F is its x0. Along a trajectory f must
not change: the loss drives the tangent cos t·df/dt, an exact forward-mode derivative of the network, to zero. The data
is assumed to have unit standard deviation (σ_d = 1), as latents have. The paper's data have σ_d = 0.5; its settings
are carried over by `ContinuousConfig.scaled`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.methods.adapters import trig_noise, trig_velocity
from distill.methods.jvp import Mode, jvp
from distill.methods.network import Network, predict_velocity
from world.model.schedule import expand, flow_sigma
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinuousConfig:
    """mean, std: of log tan t. normaliser: c of g / (‖g‖ + c), or None for unnormalised tangents (arXiv:2410.11081,
    §4.2); ‖g‖ is the root mean square, so that it does not depend on the number of elements. warm_up_steps: steps
    over which the tangent's second term is faded in (§4.2). jvp_mode: see `jvp`; networks whose attention has no
    forward mode need "reverse".

    The defaults are the paper's for CIFAR-10 (appendix G.2): P_mean −1, P_std 1.4, c 0.1, for data scaled to unit
    deviation.
    """

    mean: float = -1.0 - math.log(0.5)
    std: float = 1.4
    normaliser: float | None = 0.1 / 0.5
    warm_up_steps: int = 10_000
    jvp_mode: Mode = "forward"

    @staticmethod
    def scaled(*, p_mean: float, p_std: float, c: float, data_std: float) -> ContinuousConfig:
        """Return the settings for unit deviation that are equivalent to the paper's for data of deviation `data_std`.

        There tan t = e^τ / σ_d with τ ~ N(P_mean, P_std²) (algorithm 1), and tangents are σ_d times as long.
        """
        return ContinuousConfig(mean=p_mean - math.log(data_std), std=p_std, normaliser=c / data_std)


def trig_times(batch: int, generator: torch.Generator, config: ContinuousConfig) -> Tensor:
    """Draw t in (0, π/2), `b`."""
    return torch.atan(torch.exp(torch.randn(batch, generator=generator) * config.std + config.mean))


def warm_up(step: int, config: ContinuousConfig) -> float:
    """Return the factor r of the tangent warm-up at a training step."""
    return min(1.0, step / config.warm_up_steps) if config.warm_up_steps else 1.0


def continuous_consistency_losses(
    student: Network,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    cond: Conditioning,
    config: ContinuousConfig,
    *,
    teacher: Network | None = None,
    share: float = 1.0,
) -> Tensor:
    """Return each sample's loss, `b`, without the adaptive weighting (arXiv:2410.11081, eq. 8), with the teacher's
    dx/dt (sCD) or that of the data pair (sCT).

    x0, noise `b …`; t `b` in (0, π/2). share: r of the warm-up.
    """
    x = trig_noise(x0, noise, t)
    cos, sin = expand(t.cos(), x), expand(t.sin(), x)
    with torch.no_grad():
        rate = cos * noise - sin * x0 if teacher is None else trig_prediction(teacher, x, t, cond)
        fixed, change = jvp(
            lambda y, s: trig_prediction(student, y, s, cond), (x, t), (rate, torch.ones_like(t)), mode=config.jvp_mode
        )
        tangent = -(cos.square()) * (fixed - rate) - share * cos * sin * (x + change)
        if config.normaliser is not None:
            norm = tangent.flatten(1).norm(dim=1) / math.sqrt(tangent[0].numel())
            tangent = tangent / expand(norm + config.normaliser, tangent)
    return (trig_prediction(student, x, t, cond) - fixed - tangent).flatten(1).square().mean(1)


class LevelWeight(nn.Module):
    """w(t) of the adaptive weighting e^w·loss − w: a linear function of Fourier features of t that starts at 0.

    arXiv:2410.11081, eq. 8 and appendix D, after EDM2 (arXiv:2312.02696). At its optimum e^−w is the expected loss at
    t, so that all levels contribute equally.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, num_frequencies: int = 64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(num_frequencies, generator=generator))
        self.register_buffer("phases", torch.rand(num_frequencies, generator=generator))
        self.linear = nn.Linear(num_frequencies, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """Return w `b` for t `b`."""
        angles = t[:, None] * self.frequencies + self.phases
        weight: Tensor = self.linear((2 * math.pi * angles).cos()).squeeze(1)
        return weight


def trig_prediction(network: Network, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """Return F(x_t, t) of a flow network."""
    sigma = flow_sigma(t.cos(), t.sin())
    return trig_velocity(predict_velocity(network, x / expand(t.cos() + t.sin(), x), sigma, cond), x, t)
