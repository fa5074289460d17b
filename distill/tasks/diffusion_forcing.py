"""Train a causal student by diffusion forcing. Owns draws; the loss is in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.data.latents import ClipSource
from distill.methods.diffusion_forcing import diffusion_forcing_loss, forced_levels
from distill.methods.sampling import randn_like
from distill.tasks.context_corruption import LevelConfig
from distill.training.precision import autocast
from world.model.patterns import Banded
from world.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionForcingConfig:
    """clean_share: share of clips that are clean up to a random chunk."""

    batch_size: int = 12
    levels: LevelConfig = field(default_factory=LevelConfig)
    clean_share: float = 0.5


class DiffusionForcingTask:
    """Diffusion forcing (arXiv:2407.01392) of a causal student, from random or the teacher's weights."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: Transformer, clips: ClipSource, config: DiffusionForcingConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.student = student
        self.pattern = Banded(student.config, tuple(range(clips.num_frames)))
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        chunk = self.student.config.chunk_frames
        levels = self.config.levels.draw(batch.latents, chunk, generator)
        sigma = forced_levels(levels, self.config.clean_share, chunk, generator)
        noise = randn_like(batch.latents, generator)
        with autocast(self.student):
            loss = diffusion_forcing_loss(self.student, batch.latents, noise, sigma, batch.actions, self.pattern)
        yield "student", loss, {}
