"""Noise levels and conversions, as properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.world.definitions import assert_within
from world.model.schedule import (
    add_noise,
    euler_step,
    flow_sigma,
    noise_from_velocity,
    sampling_sigmas,
    score_from_velocity,
    shift_sigma,
    velocity,
    velocity_from_x0,
    x0_from_velocity,
)

levels = st.floats(0.0, 1.0)
positive_levels = st.floats(0.01, 1.0)
shifts = st.floats(0.1, 20.0)
seeds = st.integers(0, 2**31)


def _draw(seed: int) -> tuple[Tensor, Tensor]:
    """x0 and noise, float64 `b f c h w`."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 1, 2, 2)
    return (
        torch.randn(shape, generator=generator, dtype=torch.float64),
        torch.randn(shape, generator=generator, dtype=torch.float64),
    )


def _level(sigma: float) -> Tensor:
    """A level per frame, `b f`: all different, one of them `sigma`."""
    return sigma * torch.tensor([[1.0, 0.9, 0.8], [0.7, 0.6, 0.5]], dtype=torch.float64)


@given(seeds, levels)
def test_velocity_recovers_x0_and_noise(seed: int, sigma: float) -> None:
    x0, noise = _draw(seed)
    level = _level(sigma)
    x, v = add_noise(x0, noise, level), velocity(x0, noise)
    assert_within(x0_from_velocity(x, v, level), x0, 1e-12)
    assert_within(noise_from_velocity(x, v, level), noise, 1e-12)


@given(seeds, positive_levels)
def test_x0_recovers_velocity_and_score(seed: int, sigma: float) -> None:
    x0, noise = _draw(seed)
    level = _level(sigma)
    x = add_noise(x0, noise, level)
    assert_within(velocity_from_x0(x, x0, level), velocity(x0, noise), 1e-9)
    # the score of N((1 − sigma)·x0, sigma²) at x
    spread = level[:, :, None, None, None]
    score = -(x - (1 - spread) * x0) / spread.square()
    assert_within(
        score_from_velocity(x, velocity(x0, noise), level) / score.abs().max(), score / score.abs().max(), 1e-9
    )


@given(seeds)
def test_the_ends_of_the_scale_are_data_and_noise(seed: int) -> None:
    x0, noise = _draw(seed)
    assert torch.equal(add_noise(x0, noise, torch.zeros(2, 3)), x0)
    assert torch.equal(add_noise(x0, noise, torch.ones(2, 3)), noise)


@given(seeds, levels, levels)
def test_euler_along_the_true_velocity_is_exact(seed: int, sigma: float, sigma_next: float) -> None:
    x0, noise = _draw(seed)
    before, after = _level(sigma), _level(sigma_next)
    x = euler_step(add_noise(x0, noise, before), velocity(x0, noise), before, after)
    assert_within(x, add_noise(x0, noise, after), 1e-12)


@given(seeds, st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_models_of_other_scales_are_adapted_by_scaling(seed: int, signal: float, noise_scale: float) -> None:
    x0, noise = _draw(seed)
    sigma = flow_sigma(torch.tensor(signal, dtype=torch.float64), torch.tensor(noise_scale, dtype=torch.float64))
    scaled = (signal * x0 + noise_scale * noise) / (signal + noise_scale)
    assert_within(add_noise(x0, noise, sigma.expand(2, 3)), scaled, 1e-12)


@given(levels, shifts)
def test_shifting_stays_in_range_and_is_invertible(sigma: float, shift: float) -> None:
    level = torch.tensor(sigma, dtype=torch.float64)
    shifted = shift_sigma(level, shift)
    assert -1e-12 <= shifted <= 1 + 1e-12
    assert (shifted - level) * (shift - 1) >= -1e-12, "a shift above 1 raises levels, one below 1 lowers them"
    assert_within(shift_sigma(shifted, 1 / shift), level, 1e-9)


@given(st.integers(1, 60), shifts)
def test_sampling_levels_fall_from_one_to_zero(num_steps: int, shift: float) -> None:
    sigmas = sampling_sigmas(num_steps, shift)
    assert len(sigmas) == num_steps + 1
    assert_within(sigmas[[0, -1]], torch.tensor([1.0, 0.0], dtype=torch.float64), 1e-12)
    assert (sigmas.diff() < 0).all()


def test_zero_steps_are_rejected() -> None:
    with pytest.raises(ValueError, match="num_steps 0: must be at least 1"):
        sampling_sigmas(0)
