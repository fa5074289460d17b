"""Causal methods as trainer tasks beside those of `stages`: diffusion forcing, causal ODE regression, CausVid. Owns
their data, draws and networks; the losses are in `methods`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.given_context import LevelConfig
from distill.latents import Clips, ClipSource
from distill.methods.causal_ode import Trajectories, causal_ode_loss, clip_trajectories
from distill.methods.causvid import causvid_samples
from distill.methods.diffusion_forcing import diffusion_forcing_loss, forced_levels
from distill.methods.distribution_matching import critic_loss, dmd_gradient, dmd_loss
from distill.methods.knowledge_distillation import KnowledgeConfig
from distill.methods.sampling import generated_frames, prefix_lengths, randn_like, uniform_sigma
from distill.trainer import autocast
from world.context import Banded, TeacherForcing
from world.schedule import sampling_sigmas
from world.transformer import Conditioning, Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionForcingConfig:
    """clean_share: of the clips that are clean up to a random frame."""

    batch_size: int = 12
    levels: LevelConfig = field(default_factory=LevelConfig)
    clean_share: float = 0.5


class DiffusionForcingTask:
    """A causal student from nothing or from the teacher's weights."""

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
        sigma = forced_levels(self.config.levels.draw(batch.latents, generator), self.config.clean_share, generator)
        noise = randn_like(batch.latents, generator)
        with autocast(True):
            loss = diffusion_forcing_loss(self.student, batch.latents, noise, sigma, batch.actions, self.pattern)
        yield "student", loss, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalODEConfig:
    """num_clips: solved by the teacher before training starts."""

    batch_size: int = 12
    num_clips: int = 256
    path: KnowledgeConfig = field(default_factory=lambda: KnowledgeConfig(num_steps=2, substeps=8, shift=6.0))
    seed: int = 0


class CausalODETask:
    """Few-step initialisation of a causal student from a bidirectional teacher's trajectories."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: Transformer, teacher: Transformer, clips: ClipSource, config: CausalODEConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.student = student
        self.pattern = TeacherForcing(student.config, clips.num_frames)
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        parts = [
            _solved(teacher, clips.draw(min(config.batch_size, config.num_clips - first), generator), config, generator)
            for first in range(0, config.num_clips, config.batch_size)
        ]
        self.trajectories = Trajectories(
            torch.cat([part.states for part in parts], dim=1),
            torch.cat([part.frames for part in parts]),
            torch.cat([part.actions for part in parts]),
        )

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        all_of = self.trajectories
        rows = torch.randint(len(all_of.frames), (self.config.batch_size,), generator=generator)
        some = Trajectories(all_of.states[:, rows], all_of.frames[rows], all_of.actions[rows])
        stage = torch.randint(self.config.path.num_steps, some.frames.shape, generator=generator)
        with autocast(True):
            loss = causal_ode_loss(self.student, some, stage, self.pattern, self.config.path)
        yield "student", loss, {}


def _solved(teacher: Transformer, batch: Clips, config: CausalODEConfig, generator: torch.Generator) -> Trajectories:
    b, f = batch.latents.shape[:2]
    frames = generated_frames(prefix_lengths(b, f, teacher.config.chunk_frames, generator), f)
    with autocast(True):
        return clip_trajectories(
            teacher, batch.latents, randn_like(batch.latents, generator), frames, batch.actions, config.path
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CausVidConfig:
    """num_steps, shift: the student's levels. sigma_range, sigma_shift: where teacher and critic are compared."""

    batch_size: int = 12
    num_steps: int = 2
    shift: float = 6.0
    sigma_range: tuple[float, float] = (0.2, 0.98)
    sigma_shift: float = 6.0
    critic_lr_share: float = 2.0
    critic_updates: int = 3


class CausVidTask:
    """The student's answers for noised data after a clean prefix, judged by a bidirectional teacher and critic."""

    averaged = "student"

    def __init__(self, student: Transformer, teacher: Transformer, clips: ClipSource, config: CausVidConfig) -> None:
        critic = copy.deepcopy(teacher).requires_grad_(True)
        self.modules: Mapping[str, nn.Module] = {"student": student, "critic": critic}
        self.optimised = {"student": 1.0, "critic": config.critic_lr_share}
        self.student, self.critic, self.teacher = student, critic, teacher.requires_grad_(False)
        self.pattern = Banded(student.config, tuple(range(clips.num_frames)))
        self.levels = sampling_sigmas(config.num_steps, config.shift).float()
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        config = self.config
        batch = self.clips.draw(config.batch_size, generator)
        x0, cond = batch.latents, Conditioning(actions=batch.actions)
        b, f = x0.shape[:2]
        frames = generated_frames(prefix_lengths(b, f, self.student.config.chunk_frames, generator), f)
        level = self.levels[torch.randint(config.num_steps, (b, f), generator=generator)] * frames
        with autocast(True):
            x = causvid_samples(self.student, x0, randn_like(x0, generator), level, batch.actions, self.pattern)
            noise, sigma = randn_like(x, generator), self._sigma(b, generator)
            gradient = dmd_gradient(self.teacher, self.critic, x.detach(), noise, sigma, frames, cond)
        yield "student", dmd_loss(x, gradient, frames), {"dmd_gradient": float(gradient.abs().mean())}
        for _ in range(config.critic_updates):
            with autocast(True):
                noise, sigma = randn_like(x, generator), self._sigma(b, generator)
                loss = critic_loss(self.critic, x, noise, sigma, frames, cond)
            yield "critic", loss, {}

    def _sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        low, high = self.config.sigma_range
        return uniform_sigma(batch, generator, low=low, high=high, shift=self.config.sigma_shift)
