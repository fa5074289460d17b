"""The transformer under methods beyond plain denoising: as a flow map, and in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distill.methods.jvp import jvp
from distill.methods.mean_flow import MeanFlowConfig
from distill.methods.network import predict_velocity
from distill.methods.self_rollout import RollingCache, self_rollout
from distill.methods.teacher_forcing import teacher_forced_velocity
from distill.tasks.mean_flow import mean_flow
from distill.tasks.student import BatchConfig
from distill.training.trainer import TrainerConfig, trained
from world.errors import ShapeError
from world.model.patterns import TeacherForcing
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning, Transformer
from world.testing import CONFIGS, tiny_transformer

CONFIG = CONFIGS["pixel"][1]
FLOW_MAP = replace(CONFIG, flow_map=True)
NONE = Conditioning()


def clip(batch: int, frames: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = (batch, frames, CONFIG.channels, CONFIG.height, CONFIG.width)
    return torch.randn(shape, generator=generator, dtype=dtype)


def test_a_flow_map_begins_as_the_network_whose_weights_it_takes() -> None:
    teacher = tiny_transformer(CONFIG)
    student = Transformer(FLOW_MAP)
    missing = student.load_state_dict(teacher.state_dict(), strict=False).missing_keys
    assert all(name.startswith("interval_embedding") for name in missing)
    x, sigma = clip(2, 3, torch.Generator().manual_seed(0), torch.float32), torch.full((2, 3), 0.7)
    expected = teacher(x, sigma, NONE).prediction
    for after in (None, sigma, torch.zeros_like(sigma)):
        torch.testing.assert_close(student(x, sigma, NONE, sigma_next=after).prediction, expected)


def test_where_a_step_leads_matters_to_a_flow_map_and_is_refused_by_other_networks() -> None:
    network = tiny_transformer(FLOW_MAP)
    x, sigma = clip(2, 3, torch.Generator().manual_seed(0), torch.float32), torch.full((2, 3), 0.7)
    instant = network(x, sigma, NONE).prediction
    torch.testing.assert_close(network(x, sigma, NONE, sigma_next=sigma).prediction, instant)
    assert not torch.allclose(network(x, sigma, NONE, sigma_next=0.5 * sigma).prediction, instant, atol=1e-3)
    with pytest.raises(ShapeError, match="set flow_map=True in its config"):
        tiny_transformer(CONFIG)(x, sigma, NONE, sigma_next=sigma)
    with pytest.raises(ShapeError, match=r"sigma_next is \(2,\), expected that of sigma \(2, 3\)"):
        network(x, sigma, NONE, sigma_next=sigma[:, 0])


def test_a_transformers_derivative_along_a_trajectory_agrees_with_finite_differences() -> None:
    network = tiny_transformer(FLOW_MAP).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    x, rate = clip(2, 2, generator), clip(2, 2, generator)
    sigma = torch.tensor([[0.3, 0.6], [0.5, 0.8]], dtype=torch.float64)

    def velocity(y: Tensor, level: Tensor) -> Tensor:
        return predict_velocity(network, y, level, NONE, sigma_next=0.1 * torch.ones_like(sigma))

    _, slope = jvp(velocity, (x, sigma), (rate, torch.ones_like(sigma)))
    step = 1e-6
    expected = (velocity(x + step * rate, sigma + step) - velocity(x - step * rate, sigma - step)) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-5)


def test_mean_flow_trains_a_transformer_on_clips() -> None:
    torch.manual_seed(0)
    student = Transformer(FLOW_MAP)

    def draw(num: int, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        return 1.0 + 0.1 * clip(num, 2, generator, torch.float32), NONE

    task = mean_flow(student, draw, BatchConfig(size=16), MeanFlowConfig(apart_share=0.75, power=0.0))
    x0, noise = draw(64, torch.Generator().manual_seed(1))[0], clip(64, 2, torch.Generator().manual_seed(2)).float()
    one = torch.ones(64, 2)

    def error(network: Transformer) -> float:
        """The distance of samples in one step from the data's mean."""
        with torch.no_grad():
            sample = noise - predict_velocity(network, noise, one, NONE, sigma_next=0 * one)
        return float((sample - x0.mean()).square().mean().sqrt())

    before = error(student)
    product = trained(task, TrainerConfig(num_steps=60, lr=1e-2, warmup_steps=5, ema_decay=0.9))
    assert error(product) < 0.7 * before  # type: ignore[arg-type]  # the averaged module is the student
    assert bool(student.state_dict()["interval_embedding.2.weight"].any()), "what starts at zero is trained"


def test_teacher_forcing_keeps_float64() -> None:
    network = tiny_transformer(CONFIG).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    clean, noisy = clip(2, 4, generator), clip(2, 4, generator)
    sigma = torch.full((2, 4), 0.5, dtype=torch.float64)
    actions = torch.zeros(2, 4, CONFIG.action_dim, dtype=torch.float64)
    pattern = TeacherForcing(CONFIG, 4)
    velocity = teacher_forced_velocity(network, clean, noisy, sigma, 0 * sigma, actions, pattern)
    assert velocity.dtype == torch.float64
    moved = teacher_forced_velocity(network, clean, noisy + 1e-12, sigma, 0 * sigma, actions, pattern)
    assert 0 < float((moved - velocity).abs().max()) < 1e-9, "float32 would not show a change this small"


def test_rollouts_in_training_keep_float64() -> None:
    network = tiny_transformer(CONFIG).double().requires_grad_(False)
    num = CONFIG.window_frames
    past = clip(2, num, torch.Generator().manual_seed(0))
    actions = torch.zeros(2, num + 3, CONFIG.action_dim, dtype=torch.float64)

    def generated(context: Tensor) -> Tensor:
        cache = RollingCache.prefill(network, CONFIG, context, actions[:, :num])
        return self_rollout(network, cache, actions[:, num:], sampling_sigmas(2), 1, torch.Generator().manual_seed(1))

    frames, moved = generated(past), generated(past + 1e-12)
    assert frames.dtype == torch.float64
    assert 0 < float((moved - frames).abs().max()) < 1e-9, "float32 would not show a change this small"
