"""Train the bidirectional teacher. Owns draws; the loss is in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.data.latents import ClipSource
from distill.methods.flow_matching import flow_matching_loss
from distill.methods.sampling import generated_frames, motion_weights, prefix_lengths, randn_like
from distill.tasks.context_corruption import LevelConfig
from distill.training.precision import autocast
from world.model.transformer import Conditioning, Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """change_weight, rest_weight: see `motion_weights`."""

    batch_size: int = 16
    levels: LevelConfig = field(default_factory=LevelConfig)
    change_weight: float = 8.0
    rest_weight: float = 4.0


class TeacherTask:
    """Bidirectional denoising of clips after a clean prefix of random length; all frames of a clip have one noise
    level."""

    optimised: ClassVar = {"teacher": 1.0}
    averaged = "teacher"

    def __init__(self, teacher: Transformer, clips: ClipSource, config: TeacherConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"teacher": teacher}
        self.network = teacher
        self.chunk = teacher.config.chunk_frames
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        x0 = batch.latents
        prefix = prefix_lengths(len(x0), x0.shape[1], self.chunk, generator)
        sigma = self.config.levels.draw(x0[:, :1], 1, generator)[:, 0]
        noise = randn_like(x0, generator)
        frames = generated_frames(prefix, x0.shape[1])
        with autocast(self.network):
            cond = Conditioning(actions=batch.actions)
            weights = motion_weights(x0, self.config.change_weight, self.config.rest_weight)
            loss = flow_matching_loss(self.network, x0, noise, sigma, frames, cond, weights=weights)
        yield "teacher", loss, {}
