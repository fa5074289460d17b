"""A diffusers UNet, as it is, behind the network contract: distilled to two steps by consistency distillation.

Run: `python examples/diffusers_unet.py`. The UNet is small and random here; `UNet2DModel.from_pretrained(...)` and the
scheduler that it was trained with stand in its place.
"""

from __future__ import annotations

import copy

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from distill.methods.adapters import VP
from distill.methods.sampling import sampled
from distill.tasks.consistency import DiscreteConfig, consistency_distillation
from distill.tasks.student import BatchConfig
from distill.training.trainer import TrainerConfig, trained
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning, Output


class Wrapped(nn.Module):
    """The whole of the wrapping: which prediction it is, on which scale, and how the model is called."""

    def __init__(self, unet: nn.Module, scheduler: DDPMScheduler) -> None:
        super().__init__()
        self.unet = unet
        self.network = VP(
            lambda x, timestep, cond: self.unet(x.float(), timestep).sample,
            scheduler.alphas_cumprod,
            scheduler.config.prediction_type,
        )

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, **rest: object) -> Output:
        return self.network(x, sigma, cond, **rest)  # type: ignore[arg-type]


def small_unet() -> UNet2DModel:
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
    """Images `b 1 8 8` of unit deviation: here, stripes."""
    phase = 6.28 * torch.rand(num, 1, 1, 1, generator=generator)
    return (torch.arange(8)[:, None] * 0.8 + phase).sin().mul(1.4).expand(num, 1, 8, 8), Conditioning()


def main(num_steps: int = 200) -> Tensor:
    teacher = Wrapped(small_unet(), DDPMScheduler())
    task = consistency_distillation(copy.deepcopy(teacher), teacher, draw, BatchConfig(size=32), DiscreteConfig())
    student = trained(task, TrainerConfig(num_steps=num_steps, lr=3e-4, ema_decay=0.99))
    noise = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return sampled(student, noise, Conditioning(), sampling_sigmas(2), torch.Generator().manual_seed(1))


if __name__ == "__main__":
    print(main().shape)
