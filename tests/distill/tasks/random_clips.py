"""A source of clips of noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distill.data.latents import Clips
from world.model.config import TransformerConfig


@dataclass
class RandomClips:
    """A `ClipSource` of normal latents and actions, for a network of shape `config`."""

    config: TransformerConfig
    num_frames: int

    def draw(self, batch: int, generator: torch.Generator, *, max_still: int | None = None) -> Clips:
        shape, config = (batch, self.num_frames), self.config
        latents = torch.randn(*shape, config.channels, config.height, config.width, generator=generator)
        return Clips(latents, torch.randn(*shape, config.action_dim, generator=generator))
