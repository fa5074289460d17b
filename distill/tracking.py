"""The stage `tracker`: the codec learns to estimate from a picture what the world keeps track of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.latents import ClipSource


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerConfig:
    """batch_size: clips."""

    batch_size: int = 24


class TrackerTask:
    """Optimises the tracker to read the tracked channels off single pictures' latents. Where a picture leaves several
    answers, it learns their mean, which is short: an honest "unsure"."""

    optimised: ClassVar = {"tracker": 1.0}
    averaged = "tracker"

    def __init__(self, tracker: nn.Module, clips: ClipSource, config: TrackerConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"tracker": tracker}
        self.tracker = tracker
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        clips = self.clips.draw(self.config.batch_size, generator)
        picture, tracked = clips.latents[:, :, : -clips.num_tracked], clips.latents[:, :, -clips.num_tracked :]
        loss = F.mse_loss(self.tracker(picture), tracked[..., 0, 0])
        yield "tracker", loss, {}
