"""Real images: scikit-learn's 1,797 handwritten digits of 8×8 pixels (UCI, Alpaydin and Kaynak). Owns the split, the
setting, and the classifier whose features are compared.

`python -m benchmarks.distillation.digits` trains the classifier and writes its weights beside this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.distillation.distances import frechet
from benchmarks.distillation.settings import NONE, Setting
from distill.tasks.student import BatchConfig
from world.model.transformer import Conditioning

WEIGHTS = Path(__file__).parent / "digits_classifier.safetensors"
NUM_SAMPLES = 5_000
FEATURES = 32
MEAN, STD = 0.305, 0.376
"""Of pixels in [0, 1] over the training part."""


def split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (training images, labels, held-out images, labels): images `b 64` with mean 0 and unit deviation.

    A random fifth is held out; every fifth image would not do, since the file cycles through the ten classes.
    """
    from sklearn.datasets import load_digits  # only this benchmark needs scikit-learn

    data = load_digits()
    images = (torch.from_numpy(data.images).float().flatten(1) / 16 - MEAN) / STD
    labels = torch.from_numpy(data.target).long()
    held_out = torch.rand(len(images), generator=torch.Generator().manual_seed(0)) < 0.2
    return images[~held_out], labels[~held_out], images[held_out], labels[held_out]


class Classifier(nn.Module):
    """Images `b 64` → logits `b 10`; the Fréchet distance compares `features` `b 32`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.hidden = nn.Linear(32 * 16, FEATURES)
        self.last = nn.Linear(FEATURES, 10)

    def features(self, images: Tensor) -> Tensor:
        x = F.silu(self.conv2(F.silu(self.conv1(images.view(-1, 1, 8, 8)))))
        hidden: Tensor = F.silu(self.hidden(x.flatten(1)))
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(images))
        return logits


def classifier() -> Classifier:
    """Load the committed classifier."""
    network = Classifier()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().requires_grad_(False)


def digit_quality() -> Callable[[Tensor], dict[str, float]]:
    """Return a function that measures the Fréchet distance from the held-out images, in the classifier's features."""
    network, held_out = classifier(), split()[2]
    reference = network.features(held_out)
    return lambda samples: {"frechet": frechet(network.features(samples), reference)}


def digit_setting(**changes: Any) -> Setting:
    """Return the setting for training on the digits; changes: of its fields."""
    images = split()[0]

    def draw(num: int, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        return images[torch.randint(len(images), (num,), generator=generator)], NONE

    return replace(Setting(draw=draw, size=64, width=256, num_layers=4, batch=BatchConfig(size=256)), **changes)


def train_classifier() -> float:
    """Train the classifier on the training images, write its weights and return its held-out accuracy."""
    torch.manual_seed(0)
    images, labels, held_out, answers = split()
    network = Classifier()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    num_steps = 1500
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
    for _ in range(num_steps):
        rows = torch.randint(len(images), (128,), generator=generator)
        noisy = images[rows] + 0.2 * torch.randn(128, 64, generator=generator)
        F.cross_entropy(network(noisy), labels[rows]).backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    save_file(network.state_dict(), WEIGHTS)
    return float((network(held_out).argmax(1) == answers).float().mean())


if __name__ == "__main__":
    print(f"held-out accuracy {train_classifier():.4f}")
