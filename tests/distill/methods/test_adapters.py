"""Adapted models of other scales return the exact velocity of Gaussian data; guidance; adversarial losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distill.methods.adapters import EDM, VP, TrigFlow
from distill.methods.adversarial import approximate_r1, discriminator_loss, r1_penalty
from distill.methods.guidance import Guided
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
    with pytest.raises(ValueError, match="adapted model"):
        network(X, sigma, NONE, features=(0,))


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


def test_r1_is_half_the_squared_slope_and_the_approximation_agrees() -> None:
    def discriminator(x: Tensor, sigma: Tensor) -> Tensor:
        return 3.0 * x.sum(1)

    sigma, real = torch.ones(20_000), torch.zeros(20_000, 2, dtype=torch.float64)
    assert float(r1_penalty(discriminator, real, sigma)) == pytest.approx(0.5 * 18.0)
    near = approximate_r1(discriminator, real, sigma, torch.Generator().manual_seed(0))
    assert float(near) == pytest.approx(0.5 * 18.0, rel=0.05)


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
