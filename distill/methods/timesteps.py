"""The timesteps of a discrete schedule (DDPM, arXiv:2006.11239) on the flow scale. Owns rounding and interpolation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from world.model.schedule import flow_sigma


class Timesteps:
    """Time as a DDPM-like model counts it, by noise level.

    alphas_cumprod: ᾱ by timestep, `t`. interpolate: levels between two timesteps have a time between them; otherwise
    they are rounded to the nearest timestep. Raises ValueError unless ᾱ is finite, in [0, 1] and decreasing.
    """

    def __init__(self, alphas_cumprod: Tensor, *, interpolate: bool) -> None:
        alpha = alphas_cumprod.detach().double()
        if alpha.ndim != 1 or len(alpha) < 2:
            raise ValueError(f"alphas_cumprod is {tuple(alpha.shape)}: expected one value per timestep, at least two")
        if not bool(((alpha >= 0) & (alpha <= 1)).all()):  # false for NaN too
            wrong = int((~((alpha >= 0) & (alpha <= 1))).nonzero()[0])
            raise ValueError(f"alphas_cumprod is {float(alpha[wrong])} at timestep {wrong}: expected values in [0, 1]")
        if not bool((alpha.diff() < 0).all()):
            wrong = int((alpha.diff() >= 0).nonzero()[0]) + 1
            raise ValueError(
                f"alphas_cumprod does not decrease at timestep {wrong}: expected the cumulative product of 1 − beta "
                "(`scheduler.alphas_cumprod`), from little noise to much"
            )
        self.sigmas = flow_sigma(alpha.sqrt(), (1 - alpha).sqrt())
        self.interpolate = interpolate

    def at(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the model's time `b` and the level `b` in float64 that it stands for. Levels outside the schedule
        are clamped to its ends. Time is int64 unless it is interpolated."""
        table = self.sigmas.to(sigma.device)
        if not self.interpolate:
            nearest: tuple[Tensor, Tensor] = _Nearest.apply(sigma.double(), table)  # type: ignore[no-untyped-call]
            return nearest
        level = sigma.double().clamp(float(table[0]), float(table[-1]))
        below = (table <= level[..., None]).sum(-1).clamp(1, len(table) - 1) - 1
        return below + (level - table[below]) / (table[below + 1] - table[below]), level


class _Nearest(torch.autograd.Function):
    """Round to the nearest timestep. Raises ValueError where a derivative is asked for: that of a rounded level would
    be 0, and wrong for the model that the timesteps approximate."""

    @staticmethod
    def forward(sigma: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        t = (table - sigma[..., None]).abs().argmin(-1)
        return t, table[t]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[0])

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        raise ValueError(NO_DERIVATIVE)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:
        raise ValueError(NO_DERIVATIVE)


NO_DERIVATIVE = (
    "a model with whole timesteps has no derivative in time, which continuous-time consistency and MeanFlow need: if "
    "it takes timesteps between the integers, as sinusoidal embeddings do, give its adapter interpolate=True"
)
