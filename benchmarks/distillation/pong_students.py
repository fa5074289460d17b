"""All causal methods with the benchmark's settings for the shipped Pong. Owns the settings only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.distillation.settings import student_of
from distill.recipes.run import Run
from distill.tasks.causal_consistency import ConsistencyTask
from distill.tasks.causvid import CausVidConfig, CausVidTask
from distill.tasks.context_corruption import NO_CORRUPTION
from distill.tasks.diffusion_forcing import DiffusionForcingConfig, DiffusionForcingTask
from distill.tasks.self_forcing import SelfForcingTask
from distill.tasks.teacher_forcing import TeacherForcingTask
from distill.training.task import Task
from distill.training.trainer import TrainerConfig
from world.model.transformer import Transformer

SHIPPED = "teacher_forcing_corrupted"
"""The checkpoint's student: teacher-forced with a corrupted past, as trained by `lightcone train pong`."""


@dataclass(frozen=True, slots=True)
class Available:
    """The run that provides data and codec, and the networks trained so far, by name."""

    run: Run
    networks: dict[str, Transformer]

    def student(self, name: str) -> Transformer:
        """Return a trainable copy of the network `name`."""
        return student_of(self.networks[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class PongStudent:
    """renoise: whether rollouts renoise between steps (see `self_rollout`)."""

    name: str
    make: Callable[[Available], Task]
    trainer: TrainerConfig
    renoise: bool = True


def _teacher_forcing(available: Available) -> Task:
    preset = available.run.preset
    config = replace(preset.teacher_forced, corruption=NO_CORRUPTION, context_sigma_max=0.0)
    return TeacherForcingTask(available.student("teacher"), available.run.clips(preset.student_clip_frames), config)


def _diffusion_forcing(available: Available) -> Task:
    """Use as many tokens per step as teacher forcing, whose input contains each clip twice."""
    preset = available.run.preset
    config = DiffusionForcingConfig(batch_size=2 * preset.teacher_forced.batch_size)
    return DiffusionForcingTask(available.student("teacher"), available.run.clips(preset.student_clip_frames), config)


def _causal_consistency(available: Available) -> Task:
    preset = available.run.preset
    clips = available.run.clips(preset.student_clip_frames)
    return ConsistencyTask(available.student(SHIPPED), available.student(SHIPPED), clips, preset.few_step)


def _causvid(available: Available) -> Task:
    """Compare scores as the preset's Self-Forcing does."""
    clips = available.run.clips(available.run.preset.window_frames + 1)
    scores = available.run.preset.distilled
    config = CausVidConfig(
        sigma_range=scores.sigma_range, critic_lr_share=scores.critic_lr_share, critic_updates=scores.critic_updates
    )
    return CausVidTask(available.student(SHIPPED), available.student("teacher"), clips, config)


def _self_forcing(rollout_frames: int) -> Callable[[Available], Task]:
    def make(available: Available) -> Task:
        config = replace(available.run.preset.distilled, rollout_frames=rollout_frames)
        clips = available.run.clips(available.run.preset.window_frames + rollout_frames)
        return SelfForcingTask(available.student("causal_consistency"), available.student("teacher"), clips, config)

    return make


_FORCED = TrainerConfig(num_steps=600, lr=4e-4, ema_decay=0.998)
_FEW_STEP = TrainerConfig(num_steps=300, lr=1e-4, ema_decay=0.98, warmup_steps=20)
_MATCHED = replace(_FEW_STEP, lr=5e-5, betas=(0.0, 0.99), save_every=25)
STUDENTS = (
    PongStudent(name="teacher_forcing", make=_teacher_forcing, trainer=_FORCED, renoise=False),
    PongStudent(name="diffusion_forcing", make=_diffusion_forcing, trainer=_FORCED, renoise=False),
    PongStudent(name="causvid", make=_causvid, trainer=_MATCHED),
    PongStudent(name="causal_consistency", make=_causal_consistency, trainer=_FEW_STEP),
    PongStudent(name="self_forcing", make=_self_forcing(10), trainer=_MATCHED),
    PongStudent(name="self_forcing_long", make=_self_forcing(120), trainer=_MATCHED),
)
"""In training order: the last two start from causal consistency."""
