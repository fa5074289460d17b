"""Data other than images: train a one-step model of a ring of five atoms in space with MeanFlow."""

import torch
from torch import Tensor, nn

from distill.methods.mean_flow import MeanFlowConfig
from distill.methods.sampling import integrated
from distill.tasks.mean_flow import mean_flow
from distill.tasks.student import BatchConfig
from distill.training.trainer import TrainerConfig, trained
from world.model.transformer import Conditioning, Output


class Atoms(nn.Module):
    """Velocity of atoms `b 5 3`; any network with this call works."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(17, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 15))

    def forward(self, x: Tensor, sigma: Tensor, *_: object, sigma_next: Tensor | None = None, **__: object) -> Output:
        levels = torch.stack([sigma, sigma if sigma_next is None else sigma_next], dim=1)
        return Output(self.net(torch.cat([x.flatten(1), levels], dim=1)).view_as(x), [], {})


def draw(num: int, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
    """Draw regular pentagons in a plane, randomly rotated."""
    angle = torch.arange(5) * 1.2566 + 6.28 * torch.rand(num, 1, generator=generator)
    return 1.7 * torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=2), Conditioning()


def main(num_steps: int = 3000) -> Tensor:
    """Train for `num_steps` steps and return 256 molecules sampled in one step."""
    task = mean_flow(Atoms(), draw, BatchConfig(size=256), MeanFlowConfig(apart_share=0.75, power=0.0))
    student = trained(task, TrainerConfig(num_steps=num_steps, lr=2e-3, ema_decay=0.99))
    noise = torch.randn(256, 5, 3, generator=torch.Generator().manual_seed(0))
    return integrated(student, noise, Conditioning(), torch.tensor([1.0, 0.0]), flow_map=True)
