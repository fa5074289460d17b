"""Losses for data without frames, on Gaussian data whose solutions are known. float64.

Networks here are linear in x and most losses quadratic, so that the four points (±std, ±1) for (x0, noise) give the
Gaussian expectation exactly: no Monte-Carlo error.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distill.methods.consistency import (
    ConsistencyLossConfig,
    consistency_distillation_loss,
    consistency_training_loss,
    next_level,
)
from distill.methods.continuous_consistency import ContinuousConfig, continuous_consistency_loss
from distill.methods.f_distill import DIVERGENCES, FDistillConfig, f_weights
from distill.methods.jvp import jvp
from distill.methods.knowledge_distillation import KnowledgeConfig, knowledge_distillation_loss, ode_path
from distill.methods.mean_flow import MeanFlowConfig, mean_flow_loss
from world.context import Context
from world.schedule import expand
from world.transformer import Conditioning, Output

STD = 0.7
NONE = Conditioning()
Velocity = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Toy:
    """A network whose velocity is any function of (x, sigma, sigma_next)."""

    def __init__(self, velocity: Velocity) -> None:
        self.velocity = velocity

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        sigma_next: Tensor | None = None,
        context: Context | None = None,
        features: tuple[int, ...] = (),
    ) -> Output:
        return Output(self.velocity(x, sigma, sigma_next), [], {})


def variance(s: Tensor) -> Tensor:
    return (1 - s).square() * STD**2 + s.square()


def exact_velocity(x: Tensor, sigma: Tensor, _: Tensor | None = None) -> Tensor:
    s = expand(sigma, x)
    return x * (s - (1 - s) * STD**2) / variance(s)


def exact_consistency(x: Tensor, sigma: Tensor, _: Tensor | None = None) -> Tensor:
    """As a velocity: (x − x0)/sigma with x0 the trajectory's end."""
    s = expand(sigma, x)
    return x * (1 - STD / variance(s).sqrt()) / s


def exact_average(x: Tensor, t: Tensor, r: Tensor | None) -> Tensor:
    assert r is not None
    high, low = expand(t, x), expand(r, x)
    return x * (1 - (variance(low) / variance(high)).sqrt()) / (high - low)


def points(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x0, noise `4·n 1` and levels `4·n`: exact for polynomials up to degree three."""
    x0 = torch.tensor([STD, STD, -STD, -STD], dtype=torch.float64).repeat(len(sigma))[:, None]
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).repeat(len(sigma))[:, None]
    return x0, noise, sigma.double().repeat_interleave(4)


def slope(loss: Callable[[Toy], Tensor], solution: Velocity, offset: float) -> float:
    """The loss's derivative in a, at `offset`, of the student (1 + a)·solution."""
    amount = torch.tensor(offset, dtype=torch.float64, requires_grad=True)
    loss(Toy(lambda x, s, r: (1 + amount) * solution(x, s, r))).backward()
    assert amount.grad is not None
    return abs(float(amount.grad))


LEVELS = torch.linspace(0.2, 0.9, 8)


def consistency_slope(step: float, teacher: bool, offset: float = 0.0) -> float:
    x0, noise, sigma = points(LEVELS)
    config = ConsistencyLossConfig()

    def loss(student: Toy) -> Tensor:
        if teacher:
            target = Toy(exact_velocity)
            return consistency_distillation_loss(student, student, target, x0, noise, sigma, sigma - step, NONE, config)
        return consistency_training_loss(student, x0, noise, sigma, sigma - step, NONE, config)

    return slope(loss, exact_consistency, offset)


@pytest.mark.parametrize("teacher", [True, False])
def test_consistency_gradient_at_the_exact_solution_falls_with_the_first_order_of_the_step(teacher: bool) -> None:
    coarse, fine = consistency_slope(0.02, teacher), consistency_slope(0.01, teacher)
    assert coarse / fine == pytest.approx(2.0, rel=0.1)
    assert consistency_slope(0.01, teacher, offset=0.2) > 10 * fine


def test_the_consistency_step_shrinks_from_the_whole_way_and_stays_below() -> None:
    config = ConsistencyLossConfig()
    first, later = (next_level(LEVELS.double(), stage, config) for stage in (0, 8))
    assert bool((first < later).all())
    assert bool((later < LEVELS).all())
    assert float(next_level(torch.tensor([0.5]).double(), 0, config)) == 0.0


@pytest.mark.parametrize("teacher", [True, False])
def test_continuous_consistency_gradient_vanishes_at_the_exact_solution_only(teacher: bool) -> None:
    x0, noise, t = points(torch.linspace(0.2, 1.4, 7))
    config = ContinuousConfig(normaliser=None)

    def loss(student: Toy) -> Tensor:
        given = Toy(exact_velocity) if teacher else None
        return continuous_consistency_loss(student, x0, noise, t, NONE, config, teacher=given)

    assert slope(loss, exact_consistency, 0.0) < 1e-9
    assert slope(loss, exact_consistency, 0.2) > 1e-3


@pytest.mark.parametrize("teacher", [True, False])
def test_mean_flow_gradient_vanishes_at_the_exact_average_velocity_only(teacher: bool) -> None:
    x0, noise, t = points(LEVELS)
    config = MeanFlowConfig(power=0.0)

    def loss(student: Toy) -> Tensor:
        given = Toy(exact_velocity) if teacher else None
        return mean_flow_loss(student, x0, noise, t, 0.5 * t, NONE, config, teacher=given)

    assert slope(loss, exact_average, 0.0) < 1e-9
    assert slope(loss, exact_average, 0.2) > 1e-3


def test_the_teachers_path_ends_where_the_ode_does_and_the_exact_student_has_no_loss_on_it() -> None:
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    config = KnowledgeConfig(num_steps=2, substeps=64)
    path = ode_path(Toy(exact_velocity), noise, NONE, config)
    torch.testing.assert_close(path[-1], STD * noise, rtol=1e-3, atol=1e-4)
    for stage in (0, 1):
        index = torch.full((len(noise),), stage)
        exact = knowledge_distillation_loss(Toy(exact_consistency), path, index, NONE, config)
        assert float(exact) < 1e-6
        assert float(knowledge_distillation_loss(Toy(exact_velocity), path, index, NONE, config)) > 1e-3


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_f_distills_weight_is_the_second_derivative_times_the_squared_ratio(name: str) -> None:
    ratio = torch.linspace(0.2, 5.0, 20, dtype=torch.float64, requires_grad=True)
    f = DIVERGENCES[name]  # type: ignore[index]  # the parameters are the dict's own keys
    (first,) = torch.autograd.grad(f(ratio).sum(), ratio, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), ratio)
    config = FDistillConfig(divergence=name, normalised=False)  # type: ignore[arg-type]
    torch.testing.assert_close(f_weights(ratio.detach().log(), config), second * ratio.detach().square())


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jvps_through_attention_equal_finite_differences(mode: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 6, dtype=torch.float64)

    def function(x: Tensor, s: Tensor) -> Tensor:
        q = x @ weight
        out: Tensor = torch.nn.functional.scaled_dot_product_attention(q, x * s[:, None, None], x)
        return out

    at = (torch.randn(2, 5, 6, dtype=torch.float64), torch.rand(2, dtype=torch.float64))
    along = (torch.randn(2, 5, 6, dtype=torch.float64), torch.rand(2, dtype=torch.float64))
    _, change = jvp(function, at, along, mode=mode)  # type: ignore[arg-type]
    eps = 1e-6
    ends = [function(*(a + sign * eps * b for a, b in zip(at, along, strict=True))) for sign in (1, -1)]
    torch.testing.assert_close(change, (ends[0] - ends[1]) / (2 * eps), rtol=1e-6, atol=1e-7)
