"""All causal methods with the benchmark's settings for the process. Owns the settings; `distill` has the methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch

from benchmarks.distillation.methods import ADVERSARIAL_TRAINER, CRITIC_LR_SHARE
from benchmarks.distillation.process import NUM_STEPS, WINDOW, ProcessClips, process_config
from benchmarks.distillation.settings import Listing, student_of
from distill.methods.knowledge_distillation import KnowledgeConfig
from distill.tasks.causal_consistency import ConsistencyConfig, ConsistencyTask
from distill.tasks.causal_ode import CausalODEConfig, CausalODETask, Variant
from distill.tasks.causvid import CausVidConfig, CausVidTask
from distill.tasks.context_corruption import NO_CORRUPTION, LevelConfig
from distill.tasks.diffusion_forcing import DiffusionForcingConfig, DiffusionForcingTask
from distill.tasks.self_forcing import SelfForcingConfig, SelfForcingTask
from distill.tasks.teacher import TeacherConfig, TeacherTask
from distill.tasks.teacher_forcing import TeacherForcingConfig, TeacherForcingTask
from distill.training.task import Task
from distill.training.trainer import TrainerConfig, trained
from world.model.transformer import Transformer

LEVELS = LevelConfig(std=1.4, shift=1.0)
BATCH = 128
FRAMES = WINDOW + NUM_STEPS
PLAIN = {"change_weight": 0.0, "rest_weight": 0.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """The networks that few-step causal students start from (causal) and learn from (teacher)."""

    teacher: Transformer
    causal: Transformer


def train(task: Task, num_steps: int, **changes: Any) -> Transformer:
    """Train and return the averaged network."""
    defaults: dict[str, Any] = {"lr": 1e-3, "ema_decay": 0.995, "weight_decay": 0.0}
    return cast(Transformer, trained(task, TrainerConfig(num_steps=num_steps, **defaults | changes)))


def network() -> Transformer:
    """Return a network with fixed initial weights."""
    torch.manual_seed(0)
    return Transformer(process_config())


def teacher_forcing() -> Task:
    """Teacher forcing from random weights."""
    config = TeacherForcingConfig(
        batch_size=BATCH, levels=LEVELS, context_sigma_max=0.0, corruption=NO_CORRUPTION, first_loss_frame=1, **PLAIN
    )
    return TeacherForcingTask(network(), ProcessClips(FRAMES), config)


def diffusion_forcing() -> Task:
    """Diffusion forcing from random weights, with as many tokens per step as teacher forcing."""
    config = DiffusionForcingConfig(batch_size=2 * BATCH, levels=LEVELS)
    return DiffusionForcingTask(network(), ProcessClips(FRAMES), config)


def bidirectional_teacher(start: Transformer) -> Task:
    """The bidirectional teacher, from the weights of `start`."""
    config = TeacherConfig(batch_size=2 * BATCH, levels=LEVELS, **PLAIN)
    return TeacherTask(student_of(start), ProcessClips(WINDOW + 1), config)


def causal_ode(pretrained: Pretrained, variant: Variant) -> Task:
    """Regression onto the ODE trajectories of the bidirectional or, with `causal_teacher`, of the causal network."""
    path = KnowledgeConfig(num_steps=2, substeps=16)
    config = CausalODEConfig(variant=variant, batch_size=BATCH, num_clips=64 * BATCH, path=path, first_loss_frame=1)
    causal = variant == "causal_teacher"
    teacher, clips = (pretrained.causal, FRAMES) if causal else (pretrained.teacher, WINDOW + 1)
    return CausalODETask(student_of(pretrained.causal), teacher, ProcessClips(clips), config)


def causal_consistency(pretrained: Pretrained) -> Task:
    """Consistency distillation from the causal network."""
    config = ConsistencyConfig(
        batch_size=BATCH, num_levels=16, shift=1.0, corruption=NO_CORRUPTION, first_loss_frame=1, **PLAIN
    )
    return ConsistencyTask(student_of(pretrained.causal), student_of(pretrained.causal), ProcessClips(FRAMES), config)


def causvid(pretrained: Pretrained) -> Task:
    """CausVid, with the bidirectional teacher's scores."""
    config = CausVidConfig(
        batch_size=BATCH,
        num_steps=2,
        shift=1.0,
        sigma_shift=1.0,
        critic_lr_share=CRITIC_LR_SHARE,
        critic_updates=3,
    )
    return CausVidTask(student_of(pretrained.causal), student_of(pretrained.teacher), ProcessClips(WINDOW + 1), config)


def self_forcing(pretrained: Pretrained, *, rollout_frames: int = WINDOW) -> Task:
    """Self-Forcing over rollouts of up to `rollout_frames` frames, which a student's update shares with three of the
    critic (docs/log.md, 2026-11-30)."""
    config = SelfForcingConfig(
        batch_size=BATCH,
        num_steps=2,
        shift=1.0,
        rollout_frames=rollout_frames,
        new_frames=(WINDOW, WINDOW),
        sigma_shift=1.0,
        critic_lr_share=CRITIC_LR_SHARE,
        critic_updates=3,
        fresh_rollouts=False,
    )
    clips = ProcessClips(WINDOW + rollout_frames)
    return SelfForcingTask(student_of(pretrained.causal), student_of(pretrained.teacher), clips, config)


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalMethod:
    """renoise: whether rollouts renoise between steps (see `self_rollout`)."""

    name: str
    make: Callable[[Pretrained], Task]
    num_steps: int = 1500
    renoise: bool = True
    trainer: dict[str, Any] = field(default_factory=dict)


CAUSAL_METHODS = (
    CausalMethod(name="causal_ode", make=partial(causal_ode, variant="clean_past")),
    CausalMethod(name="causal_ode_noisy_past", make=partial(causal_ode, variant="noisy_past")),
    CausalMethod(name="causal_ode_causal_teacher", make=partial(causal_ode, variant="causal_teacher")),
    CausalMethod(name="causal_consistency", make=causal_consistency),
    CausalMethod(name="causvid", make=causvid, trainer=ADVERSARIAL_TRAINER),
    CausalMethod(name="self_forcing", make=self_forcing, trainer=ADVERSARIAL_TRAINER),
    CausalMethod(
        name="self_forcing_long",
        make=lambda pretrained: self_forcing(pretrained, rollout_frames=4 * WINDOW),
        trainer=ADVERSARIAL_TRAINER,
    ),
)

CAUSAL_LISTINGS = (
    Listing(
        title="teacher forcing",
        paper="GameNGen's noised context, arXiv:2408.14837",
        losses=("teacher_forcing.py",),
        task="TeacherForcingTask",
        when="the start of every causal student",
        part="pong",
        rows=("teacher_forcing", "teacher_forcing_corrupted"),
    ),
    Listing(
        title="diffusion forcing",
        paper="arXiv:2407.01392",
        losses=("diffusion_forcing.py",),
        task="DiffusionForcingTask",
        when="the same with half the tokens",
        part="pong",
        rows=("diffusion_forcing",),
    ),
    Listing(
        title="causal ODE regression",
        paper="arXiv:2412.07772, 2602.02214",
        losses=("causal_ode.py",),
        task="CausalODETask",
        when="few-step start from a bidirectional teacher, or from an autoregressive one",
        part="process",
        rows=("causal_ode",),
    ),
    Listing(
        title="causal consistency",
        paper="arXiv:2303.01469",
        losses=("causal_consistency.py",),
        task="ConsistencyTask",
        when="few-step start from a causal teacher",
        part="pong",
        rows=("causal_consistency",),
    ),
    Listing(
        title="CausVid",
        paper="arXiv:2412.07772",
        losses=("causvid.py",),
        task="CausVidTask",
        when="distribution matching without rollouts",
        part="pong",
        rows=("causvid",),
    ),
    Listing(
        title="Self-Forcing, long tuning",
        paper="arXiv:2506.08009, 2509.22622",
        losses=("self_rollout.py",),
        task="SelfForcingTask",
        when="distribution matching (DMD2, or f-distill by `divergence`) on the student's own rollouts, short or long",
        part="pong",
        rows=("self_forcing", "self_forcing_long"),
    ),
)
"""The lines of these methods in the table of `docs/training.md`, in order."""
