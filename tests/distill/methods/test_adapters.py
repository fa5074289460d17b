"""Adapted models of other scales return the exact velocity of Gaussian data; guidance; adversarial losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from distill.methods.adapters import EDM, VP, Adapted, Model, TrigFlow
from distill.methods.adversarial import approximate_r1, discriminator_loss, r1_penalty
from distill.methods.guidance import Guided
from distill.methods.jvp import jvp
from distill.methods.network import predict_velocity
from distill.methods.timesteps import Timesteps
from world.model.patterns import Bidirectional
from world.model.schedule import expand
from world.model.transformer import Conditioning

STD = 0.7
NONE = Conditioning()
X = torch.linspace(-2, 2, 8, dtype=torch.float64)[:, None]


def exact(x: Tensor, sigma: Tensor) -> Tensor:
    s = expand(sigma, x)
    return x * (s - (1 - s) * STD**2) / ((1 - s).square() * STD**2 + s.square())


def test_an_edm_denoiser_yields_the_velocity() -> None:
    network = EDM(lambda x, s, _: x * STD**2 / (STD**2 + expand(s, x).square()))
    sigma = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    torch.testing.assert_close(network(X, sigma, NONE).prediction, exact(X, sigma))
    with pytest.raises(ValueError, match="takes no attention pattern"):
        network(X, sigma, NONE, pattern=Bidirectional())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_vp_model_yields_the_velocity_at_its_own_levels(kind: str) -> None:
    alphas = torch.linspace(0.99, 0.01, 50, dtype=torch.float64)

    def predict(x: Tensor, timestep: Tensor, _: Conditioning) -> Tensor:
        alpha = expand(alphas[timestep], x)
        x0 = alpha.sqrt() * STD**2 / (alpha * STD**2 + 1 - alpha) * x
        noise = (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return {"epsilon": noise, "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * x0, "sample": x0}[kind]

    network = VP(predict, alphas, kind)  # type: ignore[arg-type]  # the parameters are its values
    sigma = network.sigmas[3:50:6]
    torch.testing.assert_close(network(X, sigma, NONE).prediction, exact(X, sigma))


def test_a_trigflow_model_yields_the_velocity() -> None:
    def predict(x: Tensor, t: Tensor, _: Conditioning) -> Tensor:
        cos, sin = expand(t.cos(), x), expand(t.sin(), x)
        return x * cos * sin * (1 - STD**2) / (cos.square() * STD**2 + sin.square())

    sigma = torch.linspace(0.1, 1.0, 8, dtype=torch.float64)
    torch.testing.assert_close(TrigFlow(predict)(X, sigma, NONE).prediction, exact(X, sigma))


class Tiny(nn.Module):
    """A network with a smooth dependence on time, and parts to take features from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = torch.stack([(0.03 * t).sin(), (0.05 * t).cos()], dim=-1).to(x)
        y: Tensor = self.second(self.first(torch.cat([x, time], dim=1)).tanh())
        return y


def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny().double()


ALPHAS = DDPMScheduler().alphas_cumprod
ZERO_SNR = DDIMScheduler(rescale_betas_zero_snr=True).alphas_cumprod


def call(model: Tiny, x: Tensor, t: Tensor, _: Conditioning) -> Tensor:
    y: Tensor = model(x, t)
    return y


ADAPTERS: dict[str, Callable[[], Adapted]] = {
    "EDM": lambda: EDM(tiny(), call=call),
    "VP": lambda: VP(tiny(), ALPHAS, call=call, interpolate=True),
    "VP, v_prediction, zero SNR": lambda: VP(tiny(), ZERO_SNR, "v_prediction", call=call, interpolate=True),
    "TrigFlow": lambda: TrigFlow(tiny(), call=call),
}


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_derivatives_in_time_agree_with_finite_differences(name: str, mode: Literal["forward", "reverse"]) -> None:
    network = ADAPTERS[name]()
    sigma = torch.linspace(0.15, 0.85, 8, dtype=torch.float64)

    def velocity(x: Tensor, level: Tensor) -> Tensor:
        return predict_velocity(network, x, level, NONE)

    _, slope = jvp(velocity, (X, sigma), (torch.zeros_like(X), torch.ones_like(sigma)), mode=mode)
    step = 1e-5
    expected = (velocity(X, sigma + step) - velocity(X, sigma - step)).detach() / (2 * step)
    assert float(torch.cosine_similarity(slope.flatten(), expected.flatten(), dim=0)) > 0.999
    torch.testing.assert_close(slope, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_derivative_in_time_through_whole_timesteps_is_refused(mode: Literal["forward", "reverse"]) -> None:
    network = VP(tiny(), ALPHAS, call=call)
    sigma = torch.full((8,), 0.5, dtype=torch.float64)
    direction = torch.zeros_like(X), torch.ones_like(sigma)
    with pytest.raises(ValueError, match=r"whole timesteps has no derivative in time.*interpolate=True"):
        jvp(lambda x, level: predict_velocity(network, x, level, NONE), (X, sigma), direction, mode=mode)
    network(X, sigma, NONE).prediction.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters()), "other derivatives are there"


def test_interpolated_timesteps_are_the_schedules_own_at_its_levels() -> None:
    timesteps = Timesteps(ALPHAS, interpolate=True)
    for number in (0, 1, 500, 998, 999):
        t, level = timesteps.at(timesteps.sigmas[number][None])
        assert (float(t), float(level)) == pytest.approx((number, float(timesteps.sigmas[number])))
    between = timesteps.sigmas[500:502].mean()[None]
    assert 500 < float(timesteps.at(between)[0]) < 501
    assert float(timesteps.at(torch.tensor([1.0]))[0]) == 999


@pytest.mark.parametrize(
    ("alphas", "kind", "cause"),
    [
        (ZERO_SNR, "epsilon", "is 0 at timestep 999, where predicted noise"),
        (torch.tensor([1.0, 0.5, 0.1]), "sample", "is 1 at timestep 0, where a predicted x0"),
        (torch.tensor([0.9, torch.nan, 0.1]), "epsilon", "is nan at timestep 1"),
        (torch.tensor([0.9, 0.5, -0.1]), "epsilon", r"is -0\.1.* at timestep 2"),
        (DDPMScheduler().betas, "epsilon", "does not decrease at timestep 1"),
        (torch.full((10, 2), 0.5), "epsilon", r"is \(10, 2\): expected one value per timestep"),
        (ALPHAS, "flow_prediction", "'flow_prediction': choose one of epsilon, v_prediction, sample"),
        (ALPHAS, "v-prediction", "'v-prediction': choose one of"),
    ],
)
def test_schedules_and_prediction_types_that_determine_no_velocity_are_refused(
    alphas: Tensor, kind: str, cause: str
) -> None:
    with pytest.raises(ValueError, match=cause):
        VP(tiny(), alphas, kind)  # type: ignore[arg-type]  # some are no prediction type


@pytest.mark.parametrize("s_max", [0.0, -1.0, float("inf"), float("nan")])
def test_an_edm_schedule_that_has_no_end_is_refused(s_max: float) -> None:
    with pytest.raises(ValueError, match=r"s_max .*: must be positive and finite"):
        EDM(tiny(), s_max)


@pytest.mark.parametrize("adapter", [EDM, TrigFlow, lambda model: VP(model, ALPHAS)])
def test_a_prediction_of_another_shape_is_refused(adapter: Callable[[Model], Adapted]) -> None:
    network = adapter(lambda x, t, _: torch.cat([x, x], dim=1))
    with pytest.raises(ValueError, match=r"predicts \(8, 2\) for an input of \(8, 1\).*variance"):
        network(X, torch.full((8,), 0.5), NONE)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_copy_calls_its_own_network(name: str) -> None:
    network = ADAPTERS[name]()
    twin = copy.deepcopy(network)
    assert dict(twin.named_parameters()).keys() == dict(network.named_parameters()).keys() != set()
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    sigma = torch.full((8,), 0.5, dtype=torch.float64)
    assert not torch.equal(twin(X, sigma, NONE).prediction, network(X, sigma, NONE).prediction)


def test_a_copy_that_would_call_the_originals_network_is_refused() -> None:
    model = tiny()
    for network in (EDM(lambda x, t, _: model(x, t)), TrigFlow(tiny(), call=lambda _, x, t, __: model(x, t))):
        with pytest.raises(ValueError, match="would call the original's Tiny"):
            copy.deepcopy(network)


def test_features_are_outputs_of_the_models_parts() -> None:
    network = TrigFlow(tiny(), call=call, layers=("first", "second"))
    output = network(X, torch.full((8,), 0.5, dtype=torch.float64), NONE, features=(0,))
    assert {number: tuple(feature.shape) for number, feature in output.features.items()} == {0: (8, 5)}
    assert not network.model.first._forward_hooks  # type: ignore[union-attr]  # it is a Tiny
    with pytest.raises(ValueError, match=r"no feature 2: the adapter has layers=\('first', 'second'\)"):
        network(X, torch.full((8,), 0.5), NONE, features=(2,))


def test_the_level_that_a_step_leads_to_is_passed_on_the_models_scale_or_refused() -> None:
    seen: list[Tensor] = []

    def with_target(model: Tiny, x: Tensor, t: Tensor, _: Conditioning, t_next: Tensor) -> Tensor:
        seen.append(t_next)
        return call(model, x, t, NONE)

    sigma, after = torch.full((8,), 0.5, dtype=torch.float64), torch.full((8,), 0.25, dtype=torch.float64)
    EDM(tiny(), call=with_target, flow_map=True)(X, sigma, NONE, sigma_next=after)
    TrigFlow(tiny(), call=with_target, flow_map=True)(X, sigma, NONE, sigma_next=after)
    vp = VP(tiny(), ALPHAS, call=with_target, flow_map=True)
    vp(X, sigma, NONE, sigma_next=vp.sigmas[100:101].expand(8))
    assert [float(t[0]) for t in seen] == pytest.approx([1 / 3, math.atan(1 / 3), 100])
    with pytest.raises(ValueError, match="does not pass sigma_next"):
        EDM(tiny(), call=call)(X, sigma, NONE, sigma_next=after)


def test_r1_is_half_the_squared_slope_and_the_approximation_agrees() -> None:
    def discriminator(x: Tensor, sigma: Tensor) -> Tensor:
        return 3.0 * x.sum(1)

    sigma, real = torch.ones(20_000), torch.zeros(20_000, 2, dtype=torch.float64)
    assert float(r1_penalty(discriminator, real, sigma)) == pytest.approx(0.5 * 18.0)
    near = approximate_r1(discriminator, real, sigma, torch.Generator().manual_seed(0))
    assert float(near) == pytest.approx(0.5 * 18.0, rel=0.05)


def test_exact_and_approximate_r1_agree_for_several_logits() -> None:
    """The mean of the logits' penalties; opposite slopes do not cancel."""

    def discriminator(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.stack([3.0 * x.sum(1), -3.0 * x.sum(1), x[:, 0]], dim=1)

    sigma, real = torch.ones(20_000), torch.zeros(20_000, 2, dtype=torch.float64)
    expected = 0.5 * (18.0 + 18.0 + 1.0) / 3
    assert float(r1_penalty(discriminator, real, sigma)) == pytest.approx(expected)
    near = approximate_r1(discriminator, real, sigma, torch.Generator().manual_seed(0))
    assert float(near) == pytest.approx(expected, rel=0.05)


def test_the_optimal_discriminator_is_the_log_ratio() -> None:
    real, fake = torch.ones(3).double(), torch.ones(1).double()
    best = torch.tensor(3.0).double().log()
    values = [
        float(
            3 * discriminator_loss(real * (best + d), fake * -1e3) + discriminator_loss(real * 1e3, fake * (best + d))
        )
        for d in (-0.1, 0.0, 0.1)
    ]
    assert values[1] < min(values[0], values[2])


def test_guidance_extrapolates_inside_its_range_only() -> None:
    cond = Conditioning(actions=torch.ones(1))
    network = EDM(lambda x, s, cond: torch.full_like(x, 1.0 if cond.actions is None else 2.0))
    sigma = torch.tensor([0.3, 0.8], dtype=torch.float64)
    x = torch.zeros(2, 1, dtype=torch.float64)
    out = Guided(network, 3.0, sigma_range=(0.5, 1.0))(x, sigma, cond).prediction
    x0 = x - expand(sigma, x) * out
    assert x0.flatten().tolist() == pytest.approx([2.0, 4.0])
