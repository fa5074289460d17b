"""Losses compared with closed forms, on Gaussian data with known denoiser, score and ODE solution. float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distill.methods.causal_consistency import causal_consistency_loss
from distill.methods.distribution_matching import dmd_gradient, dmd_loss
from distill.methods.flow_matching import flow_matching_loss
from distill.methods.self_rollout import RollingCache, self_rollout
from distill.methods.teacher_forcing import CleanPastNetwork, self_resampled, teacher_forcing_loss
from tests.distill.methods.exact_gaussian import NONE, STD, Toy, flow
from world.model.patterns import TeacherForcing
from world.model.schedule import add_noise, expand, sampling_sigmas, velocity_from_x0
from world.model.transformer import Conditioning
from world.testing import CONFIGS, tiny_transformer

SHAPE = (1, 2, 2)
RTOL, ATOL = 1e-5, 1e-6  # predictions are computed in float32


def gaussian_x0(x: Tensor, sigma: Tensor, mean: float = 0.0, std: float = STD) -> Tensor:
    """Return E[x0 | x_sigma] for data N(mean, std²)."""
    s = expand(sigma, x)
    return mean + (1 - s) * std**2 / ((1 - s) ** 2 * std**2 + s**2) * (x - (1 - s) * mean)


def gaussian_velocity(x: Tensor, sigma: Tensor, mean: float = 0.0, std: float = STD) -> Tensor:
    return velocity_from_x0(x, gaussian_x0(x, sigma, mean, std), sigma.clamp_min(1e-9))


def gaussian_consistency(x: Tensor, sigma: Tensor) -> Tensor:
    """Return the end point of the probability-flow ODE, x·std / √((1 − sigma)²std² + sigma²), for data N(0, std²)."""
    s = expand(sigma, x)
    return x * STD / ((1 - s) ** 2 * STD**2 + s**2).sqrt()


def draw(batch: int, frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = STD * torch.randn((batch, frames, *SHAPE), generator=generator, dtype=torch.float64)
    return x0, torch.randn((batch, frames, *SHAPE), generator=generator, dtype=torch.float64)


def scaled(amount: Tensor, exact: Callable[[Tensor, Tensor], Tensor]) -> Toy:
    return flow(lambda x, sigma: (1 + amount) * exact(x, sigma))


@pytest.mark.parametrize(("offset", "vanishes"), [(0.0, True), (0.2, False)])
def test_flow_matching_gradient_vanishes_at_the_exact_velocity_only(offset: float, vanishes: bool) -> None:
    x0, noise = draw(8000, 3)
    sigma = torch.linspace(0.1, 1.0, len(x0), dtype=torch.float64)
    frames = torch.tensor([False, True, True]).expand(len(x0), -1)
    amount = torch.tensor(offset, dtype=torch.float64, requires_grad=True)
    flow_matching_loss(scaled(amount, gaussian_velocity), x0, noise, sigma, frames, NONE).backward()
    assert amount.grad is not None
    assert (abs(float(amount.grad)) < 0.02) is vanishes


def test_flow_matching_passes_a_clean_prefix_and_takes_no_loss_on_it() -> None:
    x0, noise = draw(2, 3)
    frames = torch.tensor([[False, True, True], [False, False, True]])
    seen: list[tuple[Tensor, Tensor]] = []

    def record(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x, sigma))
        return torch.where(frames[:, :, None, None, None], noise - x0, torch.full_like(x0, 1e6))

    loss = flow_matching_loss(flow(record), x0, noise, torch.tensor([0.5, 0.9]).double(), frames, NONE)
    x, sigma = seen[0]
    assert torch.equal(x[~frames], x0[~frames])
    assert torch.equal(sigma, torch.tensor([[0, 0.5, 0.5], [0, 0, 0.9]]).double())
    assert float(loss) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("offset", "vanishes"), [(0.0, True), (-0.2, False)])
def test_teacher_forcing_gradient_vanishes_at_the_exact_velocity_only(offset: float, vanishes: bool) -> None:
    x0, noise = draw(8000, 2)
    sigma = torch.rand(x0.shape[:2], generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.9 + 0.1
    amount = torch.tensor(offset, dtype=torch.float64, requires_grad=True)
    pattern = TeacherForcing(CONFIGS["pixel"][1], 2)
    teacher_forcing_loss(
        scaled(amount, lambda x, s: gaussian_velocity(x, s.clamp_min(1e-3))),
        x0,
        noise,
        sigma,
        torch.zeros(len(x0), 2, 2),
        pattern,
        frames=torch.ones(len(x0), 2, dtype=torch.bool),
        context_noise=noise,
        context_sigma=torch.zeros_like(sigma),
    ).backward()
    assert amount.grad is not None
    assert (abs(float(amount.grad)) < 0.02) is vanishes


def test_self_resampled_clips_are_the_denoisers_predictions_without_gradient() -> None:
    x0, noise = draw(3, 4)
    sigma = torch.rand((3, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pattern = TeacherForcing(CONFIGS["pixel"][1], 4)
    own = self_resampled(
        flow(gaussian_velocity),
        x0.requires_grad_(True),
        noise,
        sigma,
        torch.zeros(3, 4, 0),
        pattern,
    )
    torch.testing.assert_close(own[:, :1], x0[:, :1])
    torch.testing.assert_close(own[:, 1:], gaussian_x0(add_noise(x0, noise, sigma), sigma)[:, 1:], rtol=RTOL, atol=ATOL)
    assert not own.requires_grad


def test_errors_accumulate_over_rounds_of_self_resampling() -> None:
    """A student predicts half of the previous frame; after n rounds a frame is halved n times from n frames earlier."""
    x0, noise = draw(2, 5)
    sigma = torch.rand((2, 5), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.9 + 0.05
    pattern = TeacherForcing(CONFIGS["pixel"][1], 5)

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        clean, noisy = x.chunk(2, dim=1)
        before = 0.5 * torch.cat([clean[:, :1], clean[:, :-1]], dim=1)
        return torch.cat([clean, velocity_from_x0(noisy, before, sigma.chunk(2, dim=1)[1])], dim=1)

    own = x0
    for rounds in range(1, 4):
        own = self_resampled(flow(velocity), x0, noise, sigma, torch.zeros(2, 5, 0), pattern, past=own)
        torch.testing.assert_close(own[:, rounds:], 0.5**rounds * x0[:, :-rounds], rtol=RTOL, atol=ATOL)
    torch.testing.assert_close(own[:, 4], 0.5**3 * x0[:, 1], rtol=RTOL, atol=ATOL)


def consistency_loss(num_levels: int, student: Callable[[Tensor, Tensor], Tensor]) -> float:
    x0, noise = draw(4000, 2)
    levels = sampling_sigmas(num_levels)
    index = torch.randint(num_levels, x0.shape[:2], generator=torch.Generator().manual_seed(2))

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        safe = sigma.clamp_min(1e-9)
        return velocity_from_x0(x, student(x, safe), safe)

    network = flow(velocity)
    loss = causal_consistency_loss(
        network,
        network,
        flow(lambda x, s: gaussian_velocity(x, s.clamp_min(1e-9))),
        x0,
        noise,
        levels[index],
        levels[index + 1],
        torch.zeros(len(x0), 2, 2),
        TeacherForcing(CONFIGS["pixel"][1], 2),
        torch.ones(len(x0), 2, dtype=torch.bool),
    )
    return float(loss)


def test_consistency_loss_at_the_exact_solution_is_the_squared_euler_error() -> None:
    coarse, fine = consistency_loss(32, gaussian_consistency), consistency_loss(64, gaussian_consistency)
    assert coarse / fine > 10  # a local Euler error of second order, squared: 16 in the limit
    assert consistency_loss(64, gaussian_x0) > 100 * fine  # the denoiser is not consistent


@pytest.mark.parametrize(("mean", "std"), [(0.0, STD), (0.5, STD), (0.0, 0.3)])
def test_dmd_gradient_is_the_difference_of_analytic_scores(mean: float, std: float) -> None:
    """∇KL at x_sigma is s_fake − s_real; in x0, up to the weight, it is (x0_fake − x0_real)·(1 − sigma)/sigma²."""
    x, noise = draw(64, 3)
    x = mean + x * std / STD
    frames = torch.tensor([False, True, True]).expand(len(x), -1)
    sigma = torch.full((len(x),), 0.6, dtype=torch.float64)
    teacher = flow(lambda y, s: gaussian_velocity(y, s.clamp_min(1e-9)))
    critic = flow(lambda y, s: gaussian_velocity(y, s.clamp_min(1e-9), mean, std))
    gradient = dmd_gradient(teacher, critic, x, noise, sigma, frames, NONE)
    noisy = 0.4 * x + 0.6 * noise

    def score(m: float, s: float) -> Tensor:
        return -(noisy - 0.4 * m) / (0.4**2 * s**2 + 0.6**2)

    real_x0 = gaussian_x0(noisy, torch.full(x.shape[:2], 0.6, dtype=torch.float64))
    scale = ((x - real_x0).abs()[:, 1:]).mean(dim=(1, 2, 3, 4), keepdim=True)
    expected = (score(mean, std) - score(0.0, STD)) * 0.6**2 / 0.4 / scale
    torch.testing.assert_close(gradient[:, 1:], expected[:, 1:], atol=1e-5, rtol=1e-4)
    assert not gradient[:, :1].any()
    assert bool(gradient.any()) is ((mean, std) != (0.0, STD))


def test_clean_past_network_denoises_every_frame_given_the_clean_frames_before_it() -> None:
    """Frame i of the prediction depends on the clean frames before i, on noisy frame i, and on nothing else."""
    network = tiny_transformer(CONFIGS["pixel"][1])
    config = network.config
    generator = torch.Generator().manual_seed(0)
    shape = (1, 4, config.channels, config.height, config.width)
    clean, noisy = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    cond = Conditioning(actions=torch.randn(1, 4, config.action_dim, generator=generator))
    sigma = torch.full((1, 4), 0.5)

    def answer(clean: Tensor, noisy: Tensor) -> Tensor:
        conditioned = CleanPastNetwork(network, clean, TeacherForcing(config, 4))
        return conditioned(noisy, sigma, cond).prediction.detach()

    before = answer(clean, noisy)
    for place in range(4):
        other = clean.clone()
        other[:, place] += 1.0
        changed = (answer(other, noisy) - before).abs().amax(dim=(0, 2, 3, 4)) > 1e-5
        assert changed.tolist() == [frame > place for frame in range(4)]
        other = noisy.clone()
        other[:, place] += 1.0
        changed = (answer(clean, other) - before).abs().amax(dim=(0, 2, 3, 4)) > 1e-5
        assert changed.tolist() == [frame == place for frame in range(4)]
    with pytest.raises(ValueError, match="takes actions"):
        CleanPastNetwork(network, clean, TeacherForcing(config, 4))(noisy, sigma, NONE)


def test_dmd_levels_may_be_given_per_frame() -> None:
    x, noise = draw(16, 3)
    frames = torch.tensor([False, True, True]).expand(len(x), -1)
    teacher = flow(lambda y, s: gaussian_velocity(y, s.clamp_min(1e-9)))
    critic = flow(lambda y, s: gaussian_velocity(y, s.clamp_min(1e-9), 0.5))
    one = torch.full((len(x),), 0.6, dtype=torch.float64)
    shared = dmd_gradient(teacher, critic, x, noise, one, frames, NONE)
    own = dmd_gradient(teacher, critic, x, noise, one[:, None].expand(-1, 3), frames, NONE)
    assert torch.equal(shared, own)


def test_the_gradient_of_dmd_loss_is_the_given_gradient() -> None:
    x, gradient = draw(3, 2)
    x.requires_grad_(True)
    frames = torch.ones(3, 2, dtype=torch.bool)
    dmd_loss(x, gradient, frames).backward()
    torch.testing.assert_close(x.grad, gradient / x.numel())


@pytest.mark.parametrize("name", ["pixel", "wan"])
def test_self_rollout_carries_gradient_only_in_its_exit_stage(name: str) -> None:
    config = CONFIGS[name][1]
    network = tiny_transformer(config)
    context = config.sink_frames + config.window_frames
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, context, config.channels, config.height, config.width, generator=generator)
    actions = torch.randn(2, context + 2 * config.chunk_frames, config.action_dim, generator=generator)
    cache = RollingCache.prefill(network, config, latents, actions[:, :context])
    before = [k.clone() for k, _ in cache.kv]
    sigmas = sampling_sigmas(2, 6.0).float()
    clip = self_rollout(network, cache, actions[:, context:], sigmas, 1, generator, grad_from=config.chunk_frames)
    assert clip.shape[1] == 2 * config.chunk_frames
    before_window, graded = clip.split(config.chunk_frames, dim=1)
    weights = list(network.head.parameters())
    assert not any(g.any() for g in torch.autograd.grad(before_window.sum(), weights, retain_graph=True))
    assert all(g.any() for g in torch.autograd.grad(graded.sum(), weights))
    assert all(torch.equal(old, k) for old, (k, _) in zip(before, cache.kv, strict=True))
    assert cache.next_frame == context
