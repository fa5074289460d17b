"""Models on other noise scales as a `Network`: EDM, VP/DDPM and TrigFlow. Owns the change of scale; leaves the model
unchanged.

A model of a·x0 + s·noise has sigma = s / (a + s), and its input is x·(a + s) where x is on the flow scale (see
`world.model.schedule`). Any further input of the model must be in `cond`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from world.model.patterns import AttentionPattern
from world.model.schedule import add_noise, expand, flow_sigma, velocity_from_x0
from world.model.transformer import Conditioning, Output

Model = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""(x on the model's own scale, its own time `b`, conditioning) → its own prediction."""

LEAST_SIGMA = 1e-6


class Adapted(ABC):
    """A `Network` defined by its velocity alone."""

    __slots__ = ()

    @abstractmethod
    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Return the velocity on the flow scale: x `b …`, sigma `b`."""

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        sigma_next: Tensor | None = None,
        pattern: AttentionPattern | None = None,
        features: tuple[int, ...] = (),
    ) -> Output:
        if pattern is not None or sigma_next is not None or features:
            raise ValueError(
                "an adapted model takes no pattern, sigma_next or features: write a wrapper that supports them"
            )
        return Output(self.velocity(x, sigma, cond), [], {})


@dataclass(frozen=True, slots=True)
class EDM(Adapted):
    """A denoiser D(x0 + s·noise, s) → x0 that includes its preconditioning (arXiv:2206.00364, eq. 7).

    s_max: the highest noise level it was trained for; higher levels are clamped to it.
    """

    denoise: Model
    s_max: float = 80.0

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        sigma = sigma.clamp(LEAST_SIGMA, self.s_max / (1 + self.s_max))
        s = sigma / (1 - sigma)
        x0 = self.denoise(x * expand(1 + s, x), s, cond)
        return velocity_from_x0(x, x0, sigma)


@dataclass(frozen=True, slots=True)
class VP(Adapted):
    """A DDPM-like model of √ᾱ·x0 + √(1−ᾱ)·noise that predicts noise (`epsilon`), `v_prediction` = √ᾱ·noise − √(1−ᾱ)·x0
    (arXiv:2202.00512) or x0 (`sample`).

    alphas_cumprod: ᾱ by timestep, decreasing, `t`. Timesteps are integers: sigma is rounded to the level of the nearest
    one, and x is rescaled to the expected scale of that level.
    """

    predict: Model
    alphas_cumprod: Tensor
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"

    @property
    def sigmas(self) -> Tensor:
        """Each timestep's level on the flow scale, increasing: `t`, float64."""
        alpha = self.alphas_cumprod.double()
        return flow_sigma(alpha.sqrt(), (1 - alpha).sqrt())

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        timestep = (self.sigmas.to(sigma.device) - sigma[..., None].double()).abs().argmin(-1)
        alpha = expand(self.alphas_cumprod.to(sigma.device).double()[timestep], x)
        signal, noise_share = alpha.sqrt(), (1 - alpha).sqrt()
        scaled = x * (signal + noise_share)
        predicted = self.predict(scaled, timestep, cond)
        if self.prediction_type == "epsilon":
            noise, x0 = predicted, (scaled - noise_share * predicted) / signal
        elif self.prediction_type == "v_prediction":
            noise, x0 = noise_share * scaled + signal * predicted, signal * scaled - noise_share * predicted
        else:
            noise, x0 = (scaled - signal * predicted) / noise_share, predicted
        return noise - x0


@dataclass(frozen=True, slots=True)
class TrigFlow(Adapted):
    """A model F(x_t, t) of x_t = cos t·x0 + sin t·noise that predicts dx/dt = cos t·noise − sin t·x0
    (arXiv:2410.11081, §3.1; data scaled to unit standard deviation, σ_d = 1)."""

    predict: Model

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        t = torch.atan2(sigma, 1 - sigma)
        cos, sin = expand(t.cos(), x), expand(t.sin(), x)
        scaled = x * (cos + sin)
        f = self.predict(scaled, t, cond)
        return (sin * scaled + cos * f) - (cos * scaled - sin * f)


def trig_velocity(velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Return TrigFlow's F, computed from a flow network's velocity at x_flow = x / (cos t + sin t).

    The inverse of `TrigFlow.velocity`. x is on TrigFlow's scale, `b …`; t `b`.
    """
    cos, sin = expand(t.cos(), x), expand(t.sin(), x)
    total = cos + sin
    x_flow = x / total
    noise, x0 = x_flow + cos / total * velocity, x_flow - sin / total * velocity
    return cos * noise - sin * x0


def trig_noise(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return x_t = cos t·x0 + sin t·noise."""
    sigma = flow_sigma(t.cos(), t.sin())
    return add_noise(x0, noise, sigma) * expand(t.cos() + t.sin(), x0)
