"""The stages of distillation as trainer tasks. Owns their data, draws and networks; the losses are in `methods`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.given_context import UNTOUCHED, ContextConfig, LevelConfig, context_levels, given_context
from distill.latents import ClipSource
from distill.methods.causal_consistency import causal_consistency_loss
from distill.methods.flow_matching import flow_matching_loss
from distill.methods.sampling import (
    generated_frames,
    motion_weights,
    prefix_lengths,
    randn_like,
)
from distill.methods.teacher_forcing import teacher_forcing_loss
from distill.trainer import autocast
from world.context import TeacherForcing
from world.schedule import sampling_sigmas
from world.transformer import Conditioning, Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Bidirectional denoising of clips after a clean prefix of random length; all its frames have one noise level."""

    batch_size: int = 16
    levels: LevelConfig = field(default_factory=LevelConfig)
    change_weight: float = 8.0
    rest_weight: float = 4.0


class TeacherTask:
    """Stage 1: the bidirectional teacher."""

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
        sigma = self.config.levels.draw(x0[:, :1], generator)[:, 0]
        noise = randn_like(x0, generator)
        frames = generated_frames(prefix, x0.shape[1])
        with autocast(True):
            cond = Conditioning(actions=batch.actions)
            weights = motion_weights(x0, self.config.change_weight, self.config.rest_weight)
            loss = flow_matching_loss(self.network, x0, noise, sigma, frames, cond, weights=weights)
        yield "teacher", loss, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherForcingConfig:
    """Autoregressive initialisation of the student; on half of the samples the context is noised a little."""

    batch_size: int = 12
    levels: LevelConfig = field(default_factory=LevelConfig)
    change_weight: float = 8.0
    rest_weight: float = 4.0
    context_sigma_max: float = 0.15
    context: ContextConfig = UNTOUCHED
    first_loss_frame: int = 3


class TeacherForcingTask:
    """Stage 2: the causal student, teacher-forced, from the teacher's weights."""

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
        sigma = self.config.levels.draw(x0, generator)
        context_sigma = context_levels(b, f, self.config.context_sigma_max, generator)
        frames = torch.arange(f).expand(b, f) >= self.config.first_loss_frame
        noise, context_noise = randn_like(x0, generator), randn_like(x0, generator)
        with autocast(True):
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
                context=given_context(
                    self.network, batch, self.pattern, self.config.levels, self.config.context, generator
                ),
                weights=motion_weights(x0, self.config.change_weight, self.config.rest_weight),
            )
        yield "student", loss, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyConfig:
    """Few-step initialisation: `num_levels` levels between 1 and 0, shifted."""

    batch_size: int = 12
    num_levels: int = 8
    shift: float = 6.0
    change_weight: float = 8.0
    rest_weight: float = 4.0
    target_decay: float = 0.95
    context: ContextConfig = field(default_factory=ContextConfig)
    first_loss_frame: int = 3


class ConsistencyTask:
    """Stage 3: causal consistency, from the teacher-forced student; that student is also the causal teacher."""

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
        index = torch.randint(self.config.num_levels, (b, f), generator=generator)
        frames = torch.arange(f).expand(b, f) >= self.config.first_loss_frame
        with autocast(True):
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
                context=given_context(self.teacher, batch, self.pattern, LevelConfig(), self.config.context, generator),
                weights=motion_weights(batch.latents, self.config.change_weight, self.config.rest_weight),
            )
        yield "student", loss, {}
        with torch.no_grad():
            for mean, value in zip(self.target.parameters(), self.student.parameters(), strict=True):
                mean.lerp_(value, 1 - self.config.target_decay)
