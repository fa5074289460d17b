"""Every causal method, as the benchmark trains it on the shipped Pong. Owns the settings; methods are `distill`'s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.distillation.methods import student_of
from distill.recipes.run import Run
from distill.tasks.causal_consistency import ConsistencyTask
from distill.tasks.causvid import CausVidConfig, CausVidTask
from distill.tasks.context_corruption import NO_CORRUPTION
from distill.tasks.diffusion_forcing import DiffusionForcingConfig, DiffusionForcingTask
from distill.tasks.self_forcing import SelfForcingConfig, SelfForcingTask
from distill.tasks.teacher_forcing import TeacherForcingTask
from distill.training.trainer import Task, TrainerConfig
from world.model.transformer import Transformer

SHIPPED = "teacher_forcing_worn"
"""The checkpoint's own student: teacher-forced with a worn past, as `lightcone train pong` does."""


@dataclass(frozen=True, slots=True)
class Given:
    """The run that data and codec are from, and the networks there are so far, by name."""

    run: Run
    networks: dict[str, Transformer]

    def student(self, name: str) -> Transformer:
        """A copy to train."""
        return student_of(self.networks[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class PongStudent:
    """renoise: how its rollouts are made (see `self_rollout`)."""

    name: str
    make: Callable[[Given], Task]
    trainer: TrainerConfig
    renoise: bool = True


def _teacher_forcing(given: Given) -> Task:
    preset = given.run.preset
    config = replace(preset.teacher_forced, corruption=NO_CORRUPTION, context_sigma_max=0.0)
    return TeacherForcingTask(given.student("teacher"), given.run.clips(preset.student_clip_frames), config)


def _diffusion_forcing(given: Given) -> Task:
    """As many tokens a step as teacher forcing, which has each clip twice."""
    preset = given.run.preset
    config = DiffusionForcingConfig(batch_size=2 * preset.teacher_forced.batch_size)
    return DiffusionForcingTask(given.student("teacher"), given.run.clips(preset.student_clip_frames), config)


def _causal_consistency(given: Given) -> Task:
    preset = given.run.preset
    clips = given.run.clips(preset.student_clip_frames)
    return ConsistencyTask(given.student(SHIPPED), given.student(SHIPPED), clips, preset.few_step)


def _causvid(given: Given) -> Task:
    clips = given.run.clips(given.run.preset.window_frames + 1)
    return CausVidTask(given.student(SHIPPED), given.student("teacher"), clips, CausVidConfig())


def _self_forcing(rollout_frames: int) -> Callable[[Given], Task]:
    def make(given: Given) -> Task:
        config = SelfForcingConfig(rollout_frames=rollout_frames)
        clips = given.run.clips(given.run.preset.window_frames + rollout_frames)
        return SelfForcingTask(given.student("causal_consistency"), given.student("teacher"), clips, config)

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
"""In order: the last two go on from causal consistency."""
