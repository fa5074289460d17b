"""The examples train: the student moves, improves, and leaves the models that it learns from as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from distill.methods.continuous_consistency import ContinuousConfig
from distill.methods.network import predict_x0
from distill.methods.sampling import integrated
from distill.tasks.continuous_consistency import ContinuousConsistencyTask
from distill.tasks.student import BatchConfig
from distill.training.trainer import TrainerConfig, trained
from examples import diffusers_unet, molecule
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning

NONE = Conditioning()


def test_a_diffusers_unet_is_distilled_unmodified() -> None:
    """Improved: in one step the student comes closer than its teacher to where the teacher's many steps lead."""
    teacher = diffusers_unet.wrapped(diffusers_unet.small_unet(), DDPMScheduler(prediction_type="v_prediction"))
    assert type(teacher.model) is UNet2DModel
    before = copy.deepcopy(teacher.state_dict())
    student = diffusers_unet.distilled(teacher, num_steps=40)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(weight.grad is None for weight in teacher.parameters())
    moved = [not torch.equal(value, before[name]) for name, value in student.state_dict().items()]
    assert all(moved), f"{moved.count(False)} of {len(moved)} weights have not moved"
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        end = integrated(teacher, noise, NONE, sampling_sigmas(18).float())
        errors = [
            float((predict_x0(network, noise, torch.ones(64), NONE) - end).square().mean())
            for network in (teacher, student)
        ]
    assert errors[1] < 0.8 * errors[0]
    assert diffusers_unet.samples(student).shape == (16, 1, 8, 8)


def test_the_wrapped_unets_velocity_is_the_schedulers() -> None:
    """Compared with x0 computed from the UNet's noise prediction and the scheduler's levels."""
    scheduler = DDPMScheduler()
    unet = diffusers_unet.small_unet().requires_grad_(False)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha = scheduler.alphas_cumprod[500].double()
    signal, share = alpha.sqrt(), (1 - alpha).sqrt()
    noise = unet(x, 500).sample
    x0 = (x - share.float() * noise) / signal.float()
    sigma = (share / (signal + share)).float().expand(2)
    velocity = diffusers_unet.wrapped(unet, scheduler)(x / (signal + share).float(), sigma, NONE).prediction
    torch.testing.assert_close(velocity.float(), noise - x0, rtol=1e-4, atol=1e-4)


def test_a_unet_without_forward_mode_is_trained_by_continuous_consistency_in_reverse_mode() -> None:
    teacher = diffusers_unet.wrapped(diffusers_unet.small_unet(), DDPMScheduler(prediction_type="v_prediction"))

    def train(config: ContinuousConfig) -> nn.Module:
        student = copy.deepcopy(teacher)
        task = ContinuousConsistencyTask(student, diffusers_unet.draw, BatchConfig(size=4), config, teacher=teacher)
        return trained(task, TrainerConfig(num_steps=2))

    with pytest.raises(RuntimeError) as refused:
        train(ContinuousConfig())
    assert "set jvp_mode='reverse'" in refused.value.__notes__[0]
    student = train(ContinuousConfig(jvp_mode="reverse"))
    pairs = zip(student.parameters(), teacher.parameters(), strict=True)
    assert not any(torch.equal(*pair) for pair in pairs)


def test_a_molecule_keeps_its_bonds_in_one_step() -> None:
    untrained, trained = (molecule.main(num_steps=steps) for steps in (1, 1200))
    bonds = [(atoms - atoms.roll(1, dims=1)).norm(dim=2) for atoms in (untrained, trained)]
    assert abs(float(bonds[1].mean()) - 2.0) < 0.2
    assert float(bonds[1].std()) < 0.5 * float(bonds[0].std())
