"""Losses for data without frames, on Gaussian data with known solutions. float64.

The networks are linear in x and most losses quadratic, so the four points (±std, ±1) for (x0, noise) yield the Gaussian
expectation exactly, without Monte Carlo error.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from distill.methods.adapters import TrigFlow
from distill.methods.adversarial import hinge_discriminator_loss, hinge_generator_loss
from distill.methods.consistency import (
    ConsistencyLossConfig,
    consistency_distillation_loss,
    consistency_training_loss,
    next_level,
)
from distill.methods.continuous_consistency import (
    ContinuousConfig,
    continuous_consistency_losses,
    trig_times,
)
from distill.methods.distribution_matching import backward_simulated
from distill.methods.f_distill import DIVERGENCES, DivergenceWeights, FDistillConfig, density_ratio, f_weights
from distill.methods.jvp import jvp
from distill.methods.knowledge_distillation import KnowledgeConfig, knowledge_distillation_loss, ode_path
from distill.methods.latent_adversarial import (
    FeatureDiscriminator,
    ladd_discriminator_loss,
    ladd_student_loss,
)
from distill.methods.mean_flow import MeanFlowConfig, mean_flow_loss
from distill.methods.network import predict_velocity
from distill.methods.sampling import integrated, sampled
from distill.methods.truncated_consistency import (
    TruncatedConfig,
    truncated_consistency_loss,
    truncated_levels,
)
from tests.distill.methods.exact_gaussian import (
    NONE,
    STD,
    Toy,
    Velocity,
    exact_average,
    exact_consistency,
    exact_velocity,
    points,
    slope,
)
from world.model.transformer import Conditioning, Output
from world.testing import CONFIGS, tiny_transformer

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
def test_consistency_gradient_at_the_exact_solution_is_of_first_order_in_the_step(teacher: bool) -> None:
    coarse, fine = consistency_slope(0.02, teacher), consistency_slope(0.01, teacher)
    assert coarse / fine == pytest.approx(2.0, rel=0.1)
    assert consistency_slope(0.01, teacher, offset=0.2) > 10 * fine


def test_the_consistency_step_first_reaches_level_zero_and_then_shrinks() -> None:
    config = ConsistencyLossConfig()
    first, later = (next_level(LEVELS.double(), stage, config) for stage in (0, 8))
    assert bool((first < later).all())
    assert bool((later < LEVELS).all())
    assert float(next_level(torch.tensor([0.5]).double(), 0, config)) == 0.0


def truncated_slope(step: float, offset: float = 0.0, first_stage: Velocity = exact_consistency) -> float:
    config = TruncatedConfig(cutoff=0.5)
    x0, noise, sigma = points(torch.linspace(0.5, 0.9, 8))  # the first pair straddles the cutoff

    def loss(student: Toy) -> Tensor:
        first = Toy(first_stage)
        return truncated_consistency_loss(student, first, x0, noise, sigma, sigma - step, sigma == 0.5, NONE, config)

    return slope(loss, exact_consistency, offset)


def test_truncated_consistency_gradient_is_of_first_order_in_the_step_if_the_first_stage_is_exact() -> None:
    coarse, fine = truncated_slope(0.02), truncated_slope(0.01)
    assert coarse / fine == pytest.approx(2.0, rel=0.15)
    assert truncated_slope(0.01, offset=0.2) > 10 * fine
    assert truncated_slope(0.01, first_stage=exact_velocity) > 10 * fine, "tied to the first stage at the cutoff"


def test_pinned_samples_of_truncated_consistency_are_averaged_apart() -> None:
    config = TruncatedConfig(cutoff=0.5)
    x0, noise, sigma = points(torch.tensor([0.5, 0.7, 0.9, 0.9, 0.9]))
    pinned, nobody = sigma == 0.5, torch.zeros_like(sigma, dtype=torch.bool)

    def loss(of: Tensor, pinned: Tensor) -> float:
        student, first, level = Toy(exact_velocity), Toy(exact_consistency), sigma[of]
        return float(
            truncated_consistency_loss(student, first, x0[of], noise[of], level, level - 0.1, pinned[of], NONE, config)
        )

    assert loss(~nobody, pinned) == pytest.approx(loss(~pinned, nobody) + 0.1 * loss(pinned, nobody))


def test_a_quarter_of_truncated_levels_is_the_cutoff_and_the_others_follow_students_law_above_it() -> None:
    """The largest distance between the distribution functions of two samples is below its 0.1 % quantile."""
    config = TruncatedConfig()
    levels, pinned = truncated_levels(40_000, torch.Generator().manual_seed(0), config)
    assert int(pinned.sum()) == 10_000
    assert bool((levels[pinned] == levels.min()).all())
    assert float(levels.min()) == pytest.approx(2 / 3)
    assert float(levels[~pinned].min()) >= 2 / 3
    assert float(levels.max()) <= 0.999
    torch.manual_seed(1)
    exact = math.log(2) + 0.2 * torch.distributions.StudentT(torch.tensor(0.01).double()).sample((2_000_000,))
    exact = exact[(exact >= math.log(2)) & (exact <= math.log(999))].sort().values
    found = torch.logit(levels[~pinned].double()).sort().values
    at = torch.cat([exact, found]).sort().values
    shares = [torch.searchsorted(sample, at, right=True) / len(sample) for sample in (exact, found)]
    assert len(exact) > 10_000
    assert float((shares[0] - shares[1]).abs().max()) < 1.95 * (1 / len(exact) + 1 / len(found)) ** 0.5


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_small_batches_have_their_share_at_the_cutoff(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pinned = torch.stack([truncated_levels(batch, generator, TruncatedConfig())[1] for _ in range(1000)])
    assert float(pinned.float().mean()) == pytest.approx(0.25, abs=0.05)
    assert int(pinned.sum(1).max() - pinned.sum(1).min()) == 1


@pytest.mark.parametrize("teacher", [True, False])
def test_continuous_consistency_gradient_vanishes_at_the_exact_solution_only(teacher: bool) -> None:
    x0, noise, t = points(torch.linspace(0.2, 1.4, 7))
    config = ContinuousConfig(normaliser=None)

    def loss(student: Toy) -> Tensor:
        source = Toy(exact_velocity) if teacher else None
        return continuous_consistency_losses(student, x0, noise, t, NONE, config, teacher=source).mean()

    assert slope(loss, exact_consistency, 0.0) < 1e-9
    assert slope(loss, exact_consistency, 0.2) > 1e-3


def test_continuous_consistency_on_scaled_data_is_the_papers_on_data_of_half_the_deviation() -> None:
    """Algorithm 1 of arXiv:2410.11081 with σ_d = 0.5, P_mean = −1, P_std = 1.4, c = 0.1, against the defaults."""
    std, p_mean, p_std, c = 0.5, -1.0, 1.4, 0.1
    generator = torch.Generator().manual_seed(0)
    x0, z = (std * torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    t = trig_times(64, torch.Generator().manual_seed(1), ContinuousConfig())
    tau = p_mean + p_std * torch.randn(64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(t, torch.atan(tau.exp() / std))
    t = t.double()
    cos, sin = t.cos()[:, None], t.sin()[:, None]

    def f(x: Tensor, t: Tensor) -> Tensor:
        return x.tanh() * (1 + t[:, None]).sin()

    x, rate = cos * x0 + sin * z, cos * z - sin * x0
    fixed, change = jvp(f, (x / std, t), (rate / std, torch.ones_like(t)))
    tangent = -(cos**2) * (std * fixed - rate) - cos * sin * (x + std * change)
    tangent = tangent / (tangent.square().mean(1, keepdim=True).sqrt() + c)
    expected = tangent.square().mean(1)  # F − F⁻ is 0
    network = TrigFlow(lambda x, t, _: f(x, t))
    found = continuous_consistency_losses(network, x0 / std, z / std, t, NONE, ContinuousConfig())
    torch.testing.assert_close(found, expected)
    carried_over = ContinuousConfig.scaled(p_mean=p_mean, p_std=p_std, c=c, data_std=std)
    assert carried_over == ContinuousConfig()
    assert carried_over.mean == pytest.approx(-0.31, abs=0.005)


@pytest.mark.parametrize("teacher", [True, False])
def test_mean_flow_gradient_vanishes_at_the_exact_average_velocity_only(teacher: bool) -> None:
    x0, noise, t = points(LEVELS)
    config = MeanFlowConfig(power=0.0)

    def loss(student: Toy) -> Tensor:
        source = Toy(exact_velocity) if teacher else None
        return mean_flow_loss(student, x0, noise, t, 0.5 * t, NONE, config, teacher=source)

    assert slope(loss, exact_average, 0.0) < 1e-9
    assert slope(loss, exact_average, 0.2) > 1e-3


def test_the_teachers_path_solves_the_ode_and_the_exact_student_has_no_loss_on_it() -> None:
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
    torch.testing.assert_close(f_weights(ratio.detach(), config), second * ratio.detach().square())


def test_the_density_ratio_is_divided_by_its_running_mean_in_its_bin_of_levels() -> None:
    config = FDistillConfig(num_bins=2, mean_decay=0.5, ratio_range=(0.1, 20.0))
    ratio = density_ratio(torch.tensor([2.0, 4.0, 100.0, 0.5]).log()[:, None].expand(-1, 3), config)
    torch.testing.assert_close(ratio, torch.tensor([2.0, 4.0, 20.0, 0.5]))
    means, sigma = DivergenceWeights(config), torch.tensor([0.1, 0.4, 0.5, 1.0])
    first = means.normalised(ratio, sigma)
    assert means.means.tolist() == pytest.approx([2.0, 5.625])  # halfway from 1 to 3 and to 10.25
    torch.testing.assert_close(first, ratio / torch.tensor([2.0, 2.0, 5.625, 5.625]))
    means.normalised(torch.tensor([4.0]), torch.tensor([0.2]))
    assert means.means.tolist() == pytest.approx([3.0, 5.625]), "a bin without samples keeps its mean"
    assert "means" in means.state_dict()


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


def test_the_input_at_a_students_step_is_its_own_sample_noised_to_that_level() -> None:
    """Samples of the exact consistency map have the data's law, so its input at a step has the noised law."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40_000, 1, generator=generator, dtype=torch.float64)
    levels = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
    assert backward_simulated(Toy(exact_consistency), noise, NONE, levels, 0, generator) is noise
    simulated = backward_simulated(Toy(exact_consistency), noise, NONE, levels, 1, generator)
    assert float(simulated.std()) == pytest.approx((0.4**2 * STD**2 + 0.6**2) ** 0.5, rel=0.02)
    samples = sampled(Toy(exact_consistency), noise, NONE, levels, generator)
    assert float(samples.std()) == pytest.approx(STD, rel=0.02)


def test_steps_of_a_flow_map_are_exact_and_euler_steps_are_not() -> None:
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    levels = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    exact = integrated(Toy(exact_average), noise, NONE, levels, flow_map=True)
    torch.testing.assert_close(exact, STD * noise)
    euler = integrated(Toy(exact_velocity), noise, NONE, levels)
    assert float((euler - STD * noise).abs().max()) > 0.01


def linear_head(weight: float) -> nn.Linear:
    head = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(head.weight, weight)
    return head


class Featured(Toy):
    """A network whose feature is x itself."""

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, **_: object) -> Output:
        return Output(self.velocity(x, sigma, None), [], {0: x})


def test_ladd_follows_the_discriminators_slope_and_compares_both_at_the_same_level() -> None:
    discriminator = FeatureDiscriminator(Featured(exact_velocity), {0: linear_head(2.0)}, NONE)
    fake = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None].requires_grad_(True)
    sigma, noise = torch.full((5,), 0.3, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64)
    ladd_student_loss(discriminator, fake, noise, sigma).backward()
    torch.testing.assert_close(fake.grad, torch.full_like(fake, -2.0 * 0.7 / 5))
    real = fake.detach() + 0.5
    loss = ladd_discriminator_loss(discriminator, real, fake, (noise, noise), sigma)
    logits = [2.0 * 0.7 * x for x in (real, fake.detach())]
    torch.testing.assert_close(loss.detach(), (1 - logits[0]).clamp_min(0).mean() + (1 + logits[1]).clamp_min(0).mean())
    assert [name for name, _ in discriminator.named_parameters()] == ["heads.0.weight"]


def test_hinge_losses_balance_at_equal_laws() -> None:
    """The slopes of a discriminator that is 0 everywhere cancel; one that separates real from fake has a lower loss."""
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    hinge_discriminator_loss(logits, logits).backward()
    assert logits.grad is not None
    assert not logits.grad.any()
    assert float(hinge_discriminator_loss(torch.ones(4), -torch.ones(4))) == 0.0
    assert float(hinge_generator_loss(torch.tensor([1.0, 3.0]))) == -2.0


@pytest.mark.parametrize("name", ["pixel", "wan"])
def test_jvps_through_the_transformer_equal_finite_differences(name: str) -> None:
    """As in sCM and MeanFlow: along the trajectory and the level at once, through norms, rotation and attention."""
    network = tiny_transformer(CONFIGS[name][1]).double()
    config = network.config
    generator = torch.Generator().manual_seed(0)
    shape = (2, 2 * config.chunk_frames, config.channels, config.height, config.width)
    x, rate = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    sigma = torch.rand(shape[:2], generator=generator, dtype=torch.float64) * 0.8 + 0.1
    cond = Conditioning(actions=torch.randn(*shape[:2], config.action_dim, generator=generator, dtype=torch.float64))

    def velocity(y: Tensor, s: Tensor) -> Tensor:
        return predict_velocity(network, y, s, cond)

    along = (rate, torch.ones_like(sigma))
    value, change = jvp(velocity, (x, sigma), along)
    eps = 1e-6
    with torch.no_grad():
        ends = [velocity(x + sign * eps * rate, sigma + sign * eps) for sign in (1, -1)]
        torch.testing.assert_close(value, velocity(x, sigma))
    torch.testing.assert_close(change, (ends[0] - ends[1]) / (2 * eps), rtol=1e-5, atol=1e-5)
    assert float(change.abs().max()) > 1.0
