"""The stages of distillation as trainer tasks. Owns which data, draws and nets a stage uses; losses are in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.latents import ClipSampler
from distill.methods.flow_matching import flow_matching_loss
from distill.methods.sampling import (
    generated_frames,
    logit_normal_sigma,
    prefix_lengths,
    randn_like,
)
from distill.methods.teacher_forcing import teacher_forcing_loss
from distill.trainer import autocast
from world.context import TeacherForcing
from world.transformer import Conditioning, Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Bidirectional denoising of clips after a clean prefix of random length."""

    batch_size: int = 16
    sigma_mean: float = 0.4
    sigma_std: float = 1.2


class TeacherTask:
    """Stage 1: the bidirectional teacher."""

    optimised = {"teacher": 1.0}
    averaged = "teacher"

    def __init__(
        self, teacher: Transformer, clips: ClipSampler, config: TeacherConfig, *, compiled: bool = True
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {"teacher": teacher}
        self.network = torch.compile(teacher) if compiled else teacher
        self.chunk = teacher.config.chunk_frames
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        x0 = batch.latents
        prefix = prefix_lengths(len(x0), x0.shape[1], self.chunk, generator)
        sigma = logit_normal_sigma(len(x0), generator, mean=self.config.sigma_mean, std=self.config.sigma_std)
        noise = randn_like(x0, generator)
        frames = generated_frames(prefix, x0.shape[1])
        with autocast(True):
            loss = flow_matching_loss(self.network, x0, noise, sigma, frames, Conditioning(actions=batch.actions))
        yield "teacher", loss, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherForcingConfig:
    """Autoregressive initialisation of the student; on half of the samples the context is noised a little."""

    batch_size: int = 12
    sigma_mean: float = 0.6
    sigma_std: float = 1.3
    context_sigma_max: float = 0.15
    first_loss_frame: int = 3


class TeacherForcingTask:
    """Stage 2: the causal student, teacher-forced, from the teacher's weights."""

    optimised = {"student": 1.0}
    averaged = "student"

    def __init__(
        self, student: Transformer, clips: ClipSampler, config: TeacherForcingConfig, *, compiled: bool = True
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.network = torch.compile(student) if compiled else student
        self.pattern = TeacherForcing(student.config, clips.num_frames)
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        x0 = batch.latents
        b, f = x0.shape[:2]
        sigma = logit_normal_sigma(b * f, generator, mean=self.config.sigma_mean, std=self.config.sigma_std).view(b, f)
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
            )
        yield "student", loss, {}


def context_levels(batch: int, num_frames: int, maximum: float, generator: torch.Generator) -> Tensor:
    """`b f`: one uniform level per sample on half of the samples, 0 on the others."""
    level = torch.rand(batch, 1, generator=generator) * maximum
    noised = torch.rand(batch, 1, generator=generator) < 0.5
    return (level * noised).expand(batch, num_frames)
