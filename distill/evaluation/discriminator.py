"""Can a small network distinguish generated clips from real ones? Owns the network, its training and its accuracy.

An accuracy of 0.5 means that the world cannot be distinguished from its environment. The same network trained on two
sets of real clips shows what accuracy to expect without any difference.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

NUM_STEPS, CLIPS_PER_CLASS, FRAMES_PER_CLIP, LEARNING_RATE = 400, 12, 12, 1e-3


class Discriminator(nn.Module):
    """Pairs of neighbouring frames `b k 6 h w` in [−1, 1] → one logit per clip, positive for generated: `b`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(6, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, pairs: Tensor) -> Tensor:
        hidden = self.features(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])
        logits: Tensor = self.head(hidden.mean(dim=1))[:, 0]
        return logits


def train_discriminator(real: Tensor, generated: Tensor, *, num_steps: int = NUM_STEPS, seed: int = 0) -> Discriminator:
    """Train on real and generated clips, each uint8 `n t h w 3`."""
    torch.manual_seed(seed)
    discriminator = Discriminator()
    optimiser = torch.optim.AdamW(discriminator.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=num_steps)
    generator = torch.Generator().manual_seed(seed)
    label = torch.cat([torch.zeros(CLIPS_PER_CLASS), torch.ones(CLIPS_PER_CLASS)])
    for _ in range(num_steps):
        drawn = []
        for clips in (real, generated):
            picks = torch.randint(len(clips), (CLIPS_PER_CLASS,), generator=generator)
            places = torch.randint(clips.shape[1] - 1, (CLIPS_PER_CLASS, FRAMES_PER_CLIP), generator=generator)
            drawn.append(_pairs(clips, picks, places))
        loss = F.binary_cross_entropy_with_logits(discriminator(torch.cat(drawn)), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return discriminator.eval()


@torch.inference_mode()
def accuracy(discriminator: Discriminator, real: Tensor, generated: Tensor) -> float:
    """Return the share of clips uint8 `n t h w 3` classified correctly; both classes have equal weight."""
    recalls = []
    for clips, is_generated in ((real, False), (generated, True)):
        places = torch.arange(clips.shape[1] - 1)[None]
        logits = [float(discriminator(_pairs(clips, torch.tensor([row]), places))[0]) for row in range(len(clips))]
        recalls.append(sum((logit > 0) == is_generated for logit in logits) / len(logits))
    return sum(recalls) / 2


def _pairs(clips: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Return pairs of neighbouring frames at `places` `b k` of the clips `rows` `b`: `b k 6 h w`."""
    both = torch.stack([clips[rows[:, None], places], clips[rows[:, None], places + 1]], dim=2)
    return rearrange(both.float() / 127.5 - 1.0, "b k p h w c -> b k (p c) h w")
