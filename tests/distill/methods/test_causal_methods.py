"""Losses of causal methods on Gaussian data, and the masks and levels that they pass to the network. float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distill.methods.causal_ode import Trajectories, causal_ode_loss, clip_trajectories, past_trajectories
from distill.methods.causvid import causvid_samples
from distill.methods.diffusion_forcing import diffusion_forcing_loss, forced_levels
from distill.methods.distribution_matching import dmd_gradient, dmd_loss
from distill.methods.knowledge_distillation import KnowledgeConfig, student_levels
from tests.distill.methods.exact_gaussian import STD, Toy, exact_consistency, exact_velocity, flow
from world.model.patterns import Banded, TeacherForcing
from world.model.schedule import add_noise, expand
from world.model.transformer import Conditioning, Output
from world.testing import CONFIGS, tiny_transformer

CONFIG = CONFIGS["pixel"][1]


def draw(batch: int, frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = STD * torch.randn((batch, frames, 1, 2, 2), generator=generator, dtype=torch.float64)
    return x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64)


def actions(batch: int, frames: int) -> Tensor:
    return torch.zeros(batch, frames, 2)


def safe_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    return exact_velocity(x, sigma.clamp_min(1e-3))


@pytest.mark.parametrize(("offset", "vanishes"), [(0.0, True), (0.2, False)])
def test_diffusion_forcing_gradient_vanishes_at_the_exact_velocity_only(offset: float, vanishes: bool) -> None:
    x0, noise = draw(8000, 3)
    generator = torch.Generator().manual_seed(1)
    sigma = torch.rand(x0.shape[:2], generator=generator, dtype=torch.float64) * 0.9 + 0.1
    sigma[:, 0] = 0.0
    amount = torch.tensor(offset, dtype=torch.float64, requires_grad=True)
    network = flow(lambda x, s: (1 + amount) * safe_velocity(x, s))
    pattern = Banded(CONFIG, (0, 1, 2))
    diffusion_forcing_loss(network, x0, noise, sigma, actions(8000, 3), pattern).backward()
    assert amount.grad is not None
    assert (abs(float(amount.grad)) < 0.02) is vanishes


def test_clean_pasts_of_diffusion_forcing_are_prefixes() -> None:
    sigma = torch.full((400, 5), 0.5)
    levels = forced_levels(sigma, 0.5, 1, torch.Generator().manual_seed(0))
    clean = (levels == 0).sum(1)
    assert bool(((levels == 0) == (torch.arange(5) < clean[:, None])).all()), "a prefix"
    assert int(clean.max()) == 4
    assert 150 < int((clean > 0).sum()) < 250
    assert torch.equal(forced_levels(sigma, 0.0, 1, torch.Generator().manual_seed(0)), sigma)


def test_in_diffusion_forcing_a_frame_sees_itself_and_the_noisy_frames_before_it() -> None:
    network = tiny_transformer(CONFIG)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, CONFIG.channels, CONFIG.height, CONFIG.width, generator=generator)
    cond, sigma = Conditioning(actions=torch.zeros(1, 4, CONFIG.action_dim)), torch.full((1, 4), 0.5)

    def answer(x: Tensor) -> Tensor:
        output: Output = network(x, sigma, cond, pattern=Banded(CONFIG, (0, 1, 2, 3)))
        return output.prediction.detach()

    before = answer(x)
    for place in range(4):
        other = x.clone()
        other[:, place] += 1.0
        changed = (answer(other) - before).abs().amax(dim=(0, 2, 3, 4)) > 1e-5
        assert changed.tolist() == [frame >= place for frame in range(4)]


def test_trajectories_keep_given_frames_and_end_at_the_solution_of_the_ode() -> None:
    x0, noise = draw(50, 3)
    frames = torch.tensor([False, True, True]).expand(50, -1)
    config = KnowledgeConfig(num_steps=2, substeps=200)
    path = clip_trajectories(flow(safe_velocity), x0, noise, frames, actions(50, 3), config)
    assert path.states.shape[0] == 3
    assert bool((path.states[:, :, 0] == x0[:, 0]).all())
    torch.testing.assert_close(path.states[0, :, 1:], noise[:, 1:])
    torch.testing.assert_close(path.states[-1, :, 1:], STD * noise[:, 1:], rtol=0.02, atol=0.01)


def test_the_causal_ode_loss_of_the_exact_solution_is_zero_at_any_mixture_of_levels() -> None:
    x0, noise = draw(50, 3)
    frames = torch.tensor([False, True, True]).expand(50, -1)
    config = KnowledgeConfig(num_steps=2, substeps=400)
    path = clip_trajectories(flow(safe_velocity), x0, noise, frames, actions(50, 3), config)
    pattern = TeacherForcing(CONFIG, 3)
    stage = torch.randint(2, (50, 3), generator=torch.Generator().manual_seed(0))
    exact = causal_ode_loss(flow(lambda x, s: exact_consistency(x, s.clamp_min(1e-3))), path, stage, pattern, config)
    denoiser = causal_ode_loss(flow(safe_velocity), path, stage, pattern, config)
    assert float(exact) < 1e-4
    assert float(denoiser) > 100 * float(exact)


def test_under_a_noisy_past_the_student_sees_the_states_of_all_frames_at_their_own_levels() -> None:
    x0, noise = draw(50, 3)
    frames = torch.tensor([False, True, True]).expand(50, -1)
    config = KnowledgeConfig(num_steps=2, substeps=200)
    path = clip_trajectories(flow(safe_velocity), x0, noise, frames, actions(50, 3), config)
    stage = torch.randint(3, (50, 3), generator=torch.Generator().manual_seed(0))
    seen: list[tuple[Tensor, Tensor]] = []

    def record(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x, sigma))
        return exact_consistency(x, sigma.clamp_min(1e-3))

    loss = causal_ode_loss(flow(record), path, stage, Banded(CONFIG, (0, 1, 2)), config)
    x, sigma = seen[0]
    rows, columns = torch.meshgrid(torch.arange(50), torch.arange(3), indexing="ij")
    assert torch.equal(x, path.states[stage, rows, columns])
    assert torch.equal(sigma, student_levels(config)[stage] * frames)
    assert float(loss) < 1e-4, "given the exact solution"
    denoiser = causal_ode_loss(flow(safe_velocity), path, stage, Banded(CONFIG, (0, 1, 2)), config)
    at_end = causal_ode_loss(flow(safe_velocity), path, torch.full_like(stage, 2), Banded(CONFIG, (0, 1, 2)), config)
    assert float(denoiser) > 100 * float(loss)
    assert float(at_end) == 0.0, "frames at level 0 carry no loss"


PULL, SPREAD = 0.8, 0.5
"""The process x_i ~ N(PULL·x_(i − 1), SPREAD²)."""


def autoregressive(x: Tensor, sigma: Tensor) -> Tensor:
    """Return the exact velocity of the process over [clean; noisy]: each noisy frame given the clean one before it."""
    clean, noisy = x.chunk(2, dim=1)
    level = expand(sigma.chunk(2, dim=1)[1], noisy)
    mean = PULL * torch.cat([torch.zeros_like(clean[:, :1]), clean[:, :-1]], dim=1)
    rest = noisy - (1 - level) * mean
    x0 = mean + (1 - level) * SPREAD**2 / ((1 - level).square() * SPREAD**2 + level.square()) * rest
    return torch.cat([clean, (noisy - x0) / level.clamp_min(1e-6)], dim=1)


def end_given_past(x: Tensor, sigma: Tensor) -> Tensor:
    """Return the exact consistency map of the same process, as a velocity."""
    clean, noisy = x.chunk(2, dim=1)
    level = expand(sigma.chunk(2, dim=1)[1], noisy)
    mean = PULL * torch.cat([torch.zeros_like(clean[:, :1]), clean[:, :-1]], dim=1)
    std = ((1 - level).square() * SPREAD**2 + level.square()).sqrt()
    end = mean + (noisy - (1 - level) * mean) * SPREAD / std
    return torch.cat([clean, (noisy - end) / level.clamp_min(1e-6)], dim=1)


def test_an_autoregressive_teacher_solves_each_frame_given_the_data_before_it() -> None:
    x0, noise = draw(50, 4)
    frames = torch.tensor([False, True, True, True]).expand(50, -1)
    config, pattern = KnowledgeConfig(num_steps=2, substeps=400), TeacherForcing(CONFIG, 4)
    path = past_trajectories(flow(autoregressive), x0, noise, frames, actions(50, 4), pattern, config)
    assert torch.equal(path.past, x0)
    expected = PULL * x0[:, :-1] + SPREAD * noise[:, 1:]
    torch.testing.assert_close(path.states[-1, :, 1:], expected, rtol=0.02, atol=0.01)
    stage = torch.randint(2, (50, 4), generator=torch.Generator().manual_seed(0))
    assert float(causal_ode_loss(flow(end_given_past), path, stage, pattern, config)) < 1e-4
    assert float(causal_ode_loss(flow(autoregressive), path, stage, pattern, config)) > 0.01


def test_only_under_an_autoregressive_teacher_do_past_and_noise_determine_the_end_of_a_frame() -> None:
    """The share of an end point's variance that is left when it is regressed on the clean past and its own noise."""
    x0, noise = draw(2000, 4)
    for i in range(1, 4):
        x0[:, i] = PULL * x0[:, i - 1] + SPREAD * x0[:, i] / STD
    frames, config = torch.ones(2000, 4, dtype=torch.bool), KnowledgeConfig(num_steps=1, substeps=64)
    covariance = torch.einsum("bf...,bg...->fg", x0, x0) / x0[:, 0].numel()

    def bidirectional(x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma.max())
        blend = (
            (1 - level)
            * covariance
            @ torch.linalg.inv((1 - level) ** 2 * covariance + level**2 * torch.eye(4).double())
        )
        return (x - torch.einsum("fg,bg...->bf...", blend, x)) / max(level, 1e-6)

    def left(path: Trajectories) -> float:
        end = path.states[-1]
        given = torch.stack([path.past[:, 0], path.past[:, 1], noise[:, 2]], dim=-1).reshape(-1, 3)
        target = end[:, 2].reshape(-1, 1)
        found = given @ torch.linalg.lstsq(given, target).solution
        return float((target - found).square().mean() / target.square().mean())

    pattern = TeacherForcing(CONFIG, 4)
    assert left(clip_trajectories(flow(bidirectional), x0, noise, frames, actions(2000, 4), config)) > 0.01
    causal = past_trajectories(flow(autoregressive), x0, noise, frames, actions(2000, 4), pattern, config)
    assert left(causal) < 1e-6


def test_causvid_denoises_noised_data_and_keeps_frames_without_noise() -> None:
    x0, noise = draw(6, 4)
    sigma = torch.rand((6, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64).clamp_min(0.1)
    sigma[:, 0] = 0.0
    seen: list[Tensor] = []

    def record(x: Tensor, s: Tensor) -> Tensor:
        seen.append(x)
        return exact_consistency(x, s.clamp_min(1e-3))

    predicted = causvid_samples(flow(record), x0, noise, sigma, actions(6, 4), Banded(CONFIG, (0, 1, 2, 3)))
    torch.testing.assert_close(seen[0], add_noise(x0, noise, sigma))
    assert torch.equal(predicted[:, 0], x0[:, 0])
    level = expand(sigma, x0)
    std = ((1 - level).square() * STD**2 + level.square()).sqrt()
    torch.testing.assert_close(predicted[:, 1:], (add_noise(x0, noise, sigma) * STD / std)[:, 1:])


@pytest.mark.parametrize(("offset", "vanishes"), [(0.0, True), (0.3, False)])
def test_causvid_gradient_vanishes_if_predictions_have_the_datas_law(offset: float, vanishes: bool) -> None:
    """The exact consistency map's predictions from noised data have the data's law. With the exact critic of the law of
    the predictions, the gradient is that of the KL divergence, which is 0 there."""
    x0, noise = draw(20_000, 2)
    sigma = torch.tensor([0.0, 0.6], dtype=torch.float64).expand(len(x0), -1)
    frames = torch.tensor([False, True]).expand(len(x0), -1)
    amount = torch.tensor(offset, dtype=torch.float64, requires_grad=True)

    def student(x: Tensor, s: Tensor) -> Tensor:
        """The exact consistency map with x0 scaled by 1 + `amount`."""
        level = expand(s.clamp_min(1e-3), x)
        end = x - level * exact_consistency(x, s.clamp_min(1e-3))
        return (x - (1 + amount) * end) / level

    def critic(x: Tensor, s: Tensor) -> Tensor:
        level, std = expand(s, x), (1 + offset) * STD
        return x * (level - (1 - level) * std**2) / ((1 - level).square() * std**2 + level.square())

    clip = causvid_samples(flow(student), x0, noise, sigma, actions(len(x0), 2), Banded(CONFIG, (0, 1)))
    evaluated = torch.full((len(x0),), 0.5, dtype=torch.float64)
    other_noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    teacher: Toy = flow(safe_velocity)
    gradient = dmd_gradient(teacher, flow(critic), clip.detach(), other_noise, evaluated, frames, Conditioning())
    dmd_loss(clip, gradient, frames).backward()
    assert amount.grad is not None
    assert (abs(float(amount.grad)) < 1e-6) is vanishes
    assert vanishes or float(amount.grad) > 0.01, "a law that is too wide is narrowed"
