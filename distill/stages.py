"""The stages of distillation as trainer tasks. Owns their data, draws and networks; the losses are in `methods`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.latents import Clips, ClipSampler
from distill.methods.causal_consistency import causal_consistency_loss
from distill.methods.distribution_matching import critic_loss, dmd_gradient, dmd_loss
from distill.methods.flow_matching import flow_matching_loss
from distill.methods.sampling import (
    generated_frames,
    logit_normal_sigma,
    motion_weights,
    prefix_lengths,
    randn_like,
    uniform_sigma,
)
from distill.methods.self_rollout import RollingCache, self_rollout
from distill.methods.teacher_forcing import self_resampled, teacher_forcing_loss
from distill.trainer import autocast
from world.context import TeacherForcing
from world.schedule import sampling_sigmas, shift_sigma
from world.transformer import Conditioning, Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Bidirectional denoising of clips after a clean prefix of random length."""

    batch_size: int = 16
    sigma_std: float = 1.2
    shift: float = 6.0
    change_weight: float = 8.0
    rest_weight: float = 4.0


class TeacherTask:
    """Stage 1: the bidirectional teacher."""

    optimised: ClassVar = {"teacher": 1.0}
    averaged = "teacher"

    def __init__(self, teacher: Transformer, clips: ClipSampler, config: TeacherConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"teacher": teacher}
        self.network = teacher
        self.chunk = teacher.config.chunk_frames
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        x0 = batch.latents
        prefix = prefix_lengths(len(x0), x0.shape[1], self.chunk, generator)
        sigma = shift_sigma(logit_normal_sigma(len(x0), generator, std=self.config.sigma_std), self.config.shift)
        noise = randn_like(x0, generator)
        frames = generated_frames(prefix, x0.shape[1])
        with autocast(True):
            cond = Conditioning(actions=batch.actions)
            weights = motion_weights(x0, self.config.change_weight, self.config.rest_weight)
            loss = flow_matching_loss(self.network, x0, noise, sigma, frames, cond, weights=weights)
        yield "teacher", loss, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherForcingConfig:
    """Autoregressive initialisation of the student; on half of the samples the context is noised a little.

    self_resampled_share: of the samples, whose context is the student's own one-step prediction of it.
    """

    batch_size: int = 12
    sigma_std: float = 1.2
    shift: float = 6.0
    change_weight: float = 8.0
    rest_weight: float = 4.0
    context_sigma_max: float = 0.15
    self_resampled_share: float = 0.0
    first_loss_frame: int = 3


class TeacherForcingTask:
    """Stage 2: the causal student, teacher-forced, from the teacher's weights."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: Transformer, clips: ClipSampler, config: TeacherForcingConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.network = student
        self.pattern = TeacherForcing(student.config, clips.num_frames)
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        batch = self.clips.draw(self.config.batch_size, generator)
        x0 = batch.latents
        b, f = x0.shape[:2]
        sigma = self._sigma(b, generator)
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
                context=self._context(batch, generator),
                weights=motion_weights(x0, self.config.change_weight, self.config.rest_weight),
            )
        yield "student", loss, {}

    def _sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        levels = logit_normal_sigma(batch * self.clips.num_frames, generator, std=self.config.sigma_std)
        return shift_sigma(levels, self.config.shift).view(batch, -1)

    def _context(self, batch: Clips, generator: torch.Generator) -> Tensor:
        """The clips, the first of them as the student itself predicts them (their first frame stays as it is)."""
        num = round(self.config.self_resampled_share * len(batch.latents))
        if num == 0:
            return batch.latents
        x0, actions = batch.latents[:num], batch.actions[:num]
        noise, sigma = randn_like(x0, generator), self._sigma(num, generator)
        own = self_resampled(self.network, x0, noise, sigma, actions, self.pattern)
        return torch.cat([torch.cat([x0[:, :1], own[:, 1:]], dim=1), batch.latents[num:]])


def context_levels(batch: int, num_frames: int, maximum: float, generator: torch.Generator) -> Tensor:
    """`b f`: one uniform level per sample on half of the samples, 0 on the others."""
    level = torch.rand(batch, 1, generator=generator) * maximum
    noised = torch.rand(batch, 1, generator=generator) < 0.5
    return (level * noised).expand(batch, num_frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyConfig:
    """Few-step initialisation: `num_levels` levels between 1 and 0, shifted."""

    batch_size: int = 12
    num_levels: int = 8
    shift: float = 6.0
    change_weight: float = 8.0
    rest_weight: float = 4.0
    target_decay: float = 0.95
    first_loss_frame: int = 3


class ConsistencyTask:
    """Stage 3: causal consistency, from the teacher-forced student; that student is also the causal teacher."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(
        self, student: Transformer, causal_teacher: Transformer, clips: ClipSampler, config: ConsistencyConfig
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
                weights=motion_weights(batch.latents, self.config.change_weight, self.config.rest_weight),
            )
        yield "student", loss, {}
        with torch.no_grad():
            for mean, value in zip(self.target.parameters(), self.student.parameters(), strict=True):
                mean.lerp_(value, 1 - self.config.target_decay)


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfForcingConfig:
    """Self-rollout distribution matching. Rollouts of `min_frames` … `max_frames` frames run past the window.

    The loss looks at the last clip of the teacher's length, after a given prefix of `prefix_range` frames or, where
    less has been generated, of all that has not. sigma_range: levels at which teacher and critic are compared; the
    teacher, trained with shifted levels, knows little below.
    """

    batch_size: int = 16
    num_steps: int = 2
    shift: float = 6.0
    min_frames: int = 8
    max_frames: int = 28
    prefix_range: tuple[int, int] = (2, 8)
    sigma_range: tuple[float, float] = (0.2, 0.98)
    sigma_shift: float = 6.0
    critic_lr_share: float = 2.0
    critic_updates: int = 3


class SelfForcingTask:
    """Stage 4: the student rolls itself out through its rolling window; teacher and critic give the DMD gradient."""

    averaged = "student"

    def __init__(
        self, student: Transformer, teacher: Transformer, clips: ClipSampler, config: SelfForcingConfig
    ) -> None:
        critic = copy.deepcopy(teacher).requires_grad_(True)
        self.modules: Mapping[str, nn.Module] = {"student": student, "critic": critic}
        self.optimised = {"student": 1.0, "critic": config.critic_lr_share}
        self.student, self.critic, self.teacher = student, critic, teacher.requires_grad_(False)
        self.clips = clips
        self.context_frames = student.config.sink_frames + student.config.window_frames
        self.clip_frames = self.context_frames + student.config.chunk_frames
        self.sigmas = sampling_sigmas(config.num_steps, config.shift).float()
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        config = self.config
        x, actions, frames = self._rollout(generator)
        cond = Conditioning(actions=actions)
        with autocast(True):
            noise, sigma = randn_like(x, generator), self._sigma(len(x), generator)
            gradient = dmd_gradient(self.teacher, self.critic, x.detach(), noise, sigma, frames, cond)
        yield "student", dmd_loss(x, gradient, frames), {"dmd_gradient": float(gradient.abs().mean())}
        for _ in range(config.critic_updates):
            with autocast(True):
                noise, sigma = randn_like(x, generator), self._sigma(len(x), generator)
                loss = critic_loss(self.critic, x, noise, sigma, frames, cond)
            yield "critic", loss, {}

    def _rollout(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(clip `b f c h w`, its actions, the frames that are generated and carry gradient, bool `b f`)."""
        config, chunk = self.config, self.student.config.chunk_frames
        low, high = config.min_frames // chunk, config.max_frames // chunk
        num_frames = chunk * int(torch.randint(low, high + 1, (1,), generator=generator))
        exit_stage = int(torch.randint(config.num_steps, (1,), generator=generator))
        batch = self.clips.draw(config.batch_size, generator, max_still=self.context_frames - 1)
        context = self.context_frames
        window = self.clip_frames
        shortest, longest = config.prefix_range
        prefix = chunk * int(torch.randint(-(-shortest // chunk), longest // chunk + 1, (1,), generator=generator))
        prefix = min(max(prefix, window - num_frames), window - chunk)
        grad_from = max(0, num_frames - window + prefix)
        with autocast(True):
            cache = RollingCache.prefill(
                self.student, self.student.config, batch.latents[:, :context], batch.actions[:, :context]
            )
            actions = batch.actions[:, context : context + num_frames]
            generated = self_rollout(
                self.student, cache, actions, self.sigmas, exit_stage, generator, grad_from=grad_from
            )
        clip = torch.cat([batch.latents[:, :context], generated], dim=1)[:, -window:]
        clip_actions = batch.actions[:, : context + num_frames][:, -window:]
        frames = torch.arange(window).expand(len(clip), -1) >= prefix
        return clip, clip_actions, frames

    def _sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        low, high = self.config.sigma_range
        return uniform_sigma(batch, generator, low=low, high=high, shift=self.config.sigma_shift)
