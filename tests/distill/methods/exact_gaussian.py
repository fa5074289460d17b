"""Exact networks and quadrature points for data N(0, STD²), whose denoiser and ODE are known. float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from world.model.patterns import AttentionPattern
from world.model.schedule import expand
from world.model.transformer import Conditioning, Output

STD = 0.7
NONE = Conditioning()
Velocity = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Toy:
    """A network whose velocity is an arbitrary function of (x, sigma, sigma_next)."""

    def __init__(self, velocity: Velocity) -> None:
        self.velocity = velocity

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
        return Output(self.velocity(x, sigma, sigma_next), [], {})


def variance(s: Tensor) -> Tensor:
    return (1 - s).square() * STD**2 + s.square()


def exact_velocity(x: Tensor, sigma: Tensor, _: Tensor | None = None) -> Tensor:
    s = expand(sigma, x)
    return x * (s - (1 - s) * STD**2) / variance(s)


def exact_consistency(x: Tensor, sigma: Tensor, _: Tensor | None = None) -> Tensor:
    """Return the exact consistency map as a velocity, (x − x0)/sigma with x0 the end of the trajectory."""
    s = expand(sigma, x)
    return x * (1 - STD / variance(s).sqrt()) / s


def exact_average(x: Tensor, t: Tensor, r: Tensor | None) -> Tensor:
    assert r is not None
    high, low = expand(t, x), expand(r, x)
    return x * (1 - (variance(low) / variance(high)).sqrt()) / (high - low)


def points(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x0, noise `4·n 1` and levels `4·n`; means are exact for polynomials up to degree three."""
    x0 = torch.tensor([STD, STD, -STD, -STD], dtype=torch.float64).repeat(len(sigma))[:, None]
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).repeat(len(sigma))[:, None]
    return x0, noise, sigma.double().repeat_interleave(4)


def slope(loss: Callable[[Toy], Tensor], solution: Velocity, offset: float) -> float:
    """Return the magnitude of the loss's derivative in a, at `offset`, for the student (1 + a)·solution."""
    amount = torch.tensor(offset, dtype=torch.float64, requires_grad=True)
    loss(Toy(lambda x, s, r: (1 + amount) * solution(x, s, r))).backward()
    assert amount.grad is not None
    return abs(float(amount.grad))


def flow(velocity: Callable[[Tensor, Tensor], Tensor]) -> Toy:
    """Return a network whose velocity is a function of (x, sigma) only."""
    return Toy(lambda x, sigma, _: velocity(x, sigma))
