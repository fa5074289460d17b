"""Make a causal student few-step by consistency distillation. Owns draws and the target; the loss is in `methods`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.data.latents import ClipSource
from distill.methods.causal_consistency import causal_consistency_loss
from distill.methods.sampling import by_chunk, motion_weights, num_chunks, randn_like
from distill.tasks.context_corruption import ContextCorruption, LevelConfig, corrupt_context
from distill.training.precision import autocast
from world.model.patterns import TeacherForcing
from world.model.schedule import sampling_sigmas
from world.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyConfig:
    """num_levels, shift: the grid of noise levels from 1 to 0. target_decay: of the student's moving average, which is
    the target. first_loss_frame: earlier frames of a clip carry no loss. change_weight, rest_weight: see
    `motion_weights`."""

    batch_size: int = 12
    num_levels: int = 8
    shift: float = 6.0
    change_weight: float = 8.0
    rest_weight: float = 4.0
    target_decay: float = 0.95
    corruption: ContextCorruption = field(default_factory=ContextCorruption)
    first_loss_frame: int = 3


class ConsistencyTask:
    """Causal consistency distillation. Student and causal teacher both start as the teacher-forced student."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(
        self, student: Transformer, causal_teacher: Transformer, clips: ClipSource, config: ConsistencyConfig
    ) -> None:
        target = copy.deepcopy(student).requires_grad_(False)
        self.modules: Mapping[str, nn.Module] = {"student": student, "target": target}
        self.student, self.target, self.teacher = student, target, causal_teacher.requires_grad_(False)
        self.pattern = TeacherForcing(student.config, clips.num_frames)
        self.levels = sampling_sigmas(config.num_levels, config.shift).float()
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        b, f = batch.latents.shape[:2]
        chunk = self.student.config.chunk_frames
        index = by_chunk(torch.randint(self.config.num_levels, (b, num_chunks(f, chunk)), generator=generator), chunk)
        frames = torch.arange(f).expand(b, f) >= self.config.first_loss_frame
        with autocast(self.student):
            loss = causal_consistency_loss(
                self.student,
                self.target,
                self.teacher,
                batch.latents,
                randn_like(batch.latents, generator),
                self.levels[index],
                self.levels[index + 1],
                batch.actions,
                self.pattern,
                frames,
                past=corrupt_context(
                    self.teacher, batch, self.pattern, LevelConfig(), self.config.corruption, generator
                ),
                weights=motion_weights(batch.latents, self.config.change_weight, self.config.rest_weight),
            )
        yield "student", loss, {}

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target towards the student."""
        for mean, value in zip(self.target.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(value, 1 - self.config.target_decay)
