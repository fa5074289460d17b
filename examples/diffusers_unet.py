"""Distil an unmodified diffusers UNet to two steps by consistency distillation.

Run: `python examples/diffusers_unet.py`. The UNet here is small and random; for a real one use
`UNet2DModel.from_pretrained(...)` and the scheduler it was trained with.
"""

from __future__ import annotations

import copy

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from distill.methods.adapters import VP
from distill.methods.network import Network
from distill.methods.sampling import sampled
from distill.tasks.consistency import DiscreteConfig, consistency_distillation
from distill.tasks.student import BatchConfig
from distill.training.trainer import TrainerConfig, trained
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning


def wrapped(unet: nn.Module, scheduler: DDPMScheduler) -> VP:
    """Make a UNet a `Network`: state its noise scale, what it predicts and how it is called. Its embedding of time is a
    formula, so it takes timesteps between the integers."""
    return VP(
        unet,
        scheduler.alphas_cumprod,
        scheduler.config.prediction_type,
        call=lambda unet, x, timestep, _: unet(x, timestep).sample,  # takes the UNet as an argument, so copies work
        interpolate=True,
    )


def small_unet() -> UNet2DModel:
    """Return a small UNet with fixed random weights."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )


def draw(num: int, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
    """Draw training images `b 1 8 8` with unit standard deviation: stripes."""
    phase = 6.28 * torch.rand(num, 1, 1, 1, generator=generator)
    return (torch.arange(8)[:, None] * 0.8 + phase).sin().mul(1.4).expand(num, 1, 8, 8), Conditioning()


def distilled(teacher: VP, num_steps: int) -> nn.Module:
    """Return a student of the teacher that has been trained for `num_steps` steps."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    task = consistency_distillation(student, teacher, draw, BatchConfig(size=32), DiscreteConfig())
    return trained(task, TrainerConfig(num_steps=num_steps, lr=1e-3, warmup_steps=10, ema_decay=0.9))


def samples(student: Network) -> Tensor:
    """Return 16 samples in two steps."""
    noise = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return sampled(student, noise, Conditioning(), sampling_sigmas(2), torch.Generator().manual_seed(1))


if __name__ == "__main__":
    teacher = wrapped(small_unet(), DDPMScheduler()).requires_grad_(False)
    print(samples(distilled(teacher, num_steps=200)).shape)
