"""Train a causal student by teacher forcing. Owns draws; the loss is in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.data.latents import ClipSource
from distill.methods.sampling import motion_weights, randn_like
from distill.methods.teacher_forcing import teacher_forcing_loss
from distill.tasks.context_corruption import (
    NO_CORRUPTION,
    ContextCorruption,
    LevelConfig,
    context_levels,
    corrupt_context,
)
from distill.training.precision import autocast
from world.model.patterns import TeacherForcing
from world.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherForcingConfig:
    """context_sigma_max: on half of the samples the context has noise up to this level. first_loss_frame: earlier
    frames of a clip carry no loss. change_weight, rest_weight: see `motion_weights`."""

    batch_size: int = 12
    levels: LevelConfig = field(default_factory=LevelConfig)
    change_weight: float = 8.0
    rest_weight: float = 4.0
    context_sigma_max: float = 0.15
    corruption: ContextCorruption = NO_CORRUPTION
    first_loss_frame: int = 3


class TeacherForcingTask:
    """Teacher forcing: each frame is denoised given the clean, or corrupted, frames before it."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: Transformer, clips: ClipSource, config: TeacherForcingConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.network = student
        self.pattern = TeacherForcing(student.config, clips.num_frames)
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        x0 = batch.latents
        b, f = x0.shape[:2]
        sigma = self.config.levels.draw(x0, self.pattern.config.chunk_frames, generator)
        context_sigma = context_levels(b, f, self.config.context_sigma_max, generator)
        frames = torch.arange(f).expand(b, f) >= self.config.first_loss_frame
        noise, context_noise = randn_like(x0, generator), randn_like(x0, generator)
        with autocast(self.network):
            loss = teacher_forcing_loss(
                self.network,
                x0,
                noise,
                sigma,
                batch.actions,
                self.pattern,
                frames=frames,
                context_noise=context_noise,
                context_sigma=context_sigma,
                past=corrupt_context(
                    self.network, batch, self.pattern, self.config.levels, self.config.corruption, generator
                ),
                weights=motion_weights(x0, self.config.change_weight, self.config.rest_weight),
            )
        yield "student", loss, {}
