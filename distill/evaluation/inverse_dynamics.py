"""Inverse dynamics: infer from pictures which action led to a frame. Owns the network, its training and its accuracy.

A small convolutional network looks at seven neighbouring frames and classifies the action that led to the middle one,
as several independent choices (such as turn left / no turn / turn right). It is trained on codec reconstructions, so
that losses of the codec do not count against the world. The measure is MineWorld's (arXiv:2504.08388, §4.2) with
balanced accuracy: the mean recall over all classes, so that rare actions count as much as common ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from distill.training.precision import autocast

NEIGHBOURS = 3
"""Frames on each side of the classified one: where things have inertia, an action takes effect late."""

NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 2500, 96, 1e-3


class InverseDynamics(nn.Module):
    """Seven frames `b 21 h w` in [−1, 1] → one vector of logits per choice, with `num_classes` entries each."""

    def __init__(self, height: int, width: int, num_classes: Sequence[int]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3 * (2 * NEIGHBOURS + 1), 48, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(48, 64, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(64, 96, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(96, 96, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96 * (height // 16) * (width // 16), 192),
            nn.ReLU(),
        )
        self.heads = nn.ModuleList(nn.Linear(192, num) for num in num_classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        hidden = self.features(x)
        return [head(hidden) for head in self.heads]


def train_inverse_dynamics(
    clips: Tensor, labels: Tensor, num_classes: Sequence[int], *, num_steps: int = NUM_STEPS, seed: int = 0
) -> InverseDynamics:
    """Train on clips uint8 `n t h w 3` (sides multiples of 16) and labels int64 `n t c`, sampling classes evenly."""
    torch.manual_seed(seed)
    n, t, height, width, _ = clips.shape
    network = InverseDynamics(height, width, num_classes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=num_steps)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (part.flatten() for part in np.meshgrid(range(n), range(NEIGHBOURS, t - NEIGHBOURS), indexing="ij"))
    targets = labels[rows, columns]  # of all frames with enough neighbours, `k c`
    share = torch.ones(len(targets))
    for choice, num in enumerate(num_classes):
        counts = torch.bincount(targets[:, choice], minlength=num).clamp_min(1)
        share = share / counts[targets[:, choice]] * len(targets)
    for _ in range(num_steps):
        picks = torch.multinomial(share, BATCH_SIZE, generator=generator).numpy()
        with autocast(network):
            logits = network(_neighbourhoods(clips, rows[picks], columns[picks]))
        loss = torch.stack([F.cross_entropy(row.float(), targets[picks, i]) for i, row in enumerate(logits)]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def balanced_accuracy(network: InverseDynamics, clips: Tensor, labels: Tensor) -> list[float]:
    """Return per choice the mean recall over the classes that occur: clips uint8 `n t h w 3`, labels int64 `n t c`."""
    n, t = clips.shape[:2]
    correct: list[list[NDArray[np.bool_]]] = [[] for _ in network.heads]
    columns = np.arange(NEIGHBOURS, t - NEIGHBOURS)
    for row in range(n):
        logits = network(_neighbourhoods(clips, np.full(len(columns), row), columns))
        for choice, guess in enumerate(logits):
            correct[choice].append((guess.argmax(1) == labels[row, columns, choice]).numpy())
    truth = labels[:, NEIGHBOURS : t - NEIGHBOURS].flatten(0, 1).numpy()
    scores = []
    for choice, parts in enumerate(correct):
        hit = np.concatenate(parts)
        scores.append(float(np.mean([hit[truth[:, choice] == c].mean() for c in np.unique(truth[:, choice])])))
    return scores


def _neighbourhoods(clips: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Tensor:
    around = columns[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
    frames = clips[rows[:, None], around].float() / 127.5 - 1.0
    return rearrange(frames, "b t h w c -> b (t c) h w")
