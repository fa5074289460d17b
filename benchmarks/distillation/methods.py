"""All methods for data without frames, with the benchmark's settings. Owns the settings; `distill` has the methods."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.distillation.perceptron import Perceptron
from distill.methods.continuous_consistency import ContinuousConfig
from distill.methods.f_distill import FDistillConfig
from distill.methods.knowledge_distillation import KnowledgeConfig
from distill.methods.latent_adversarial import LADDConfig
from distill.methods.mean_flow import MeanFlowConfig
from distill.methods.sampling import integrated, sampled
from distill.methods.truncated_consistency import TruncatedConfig
from distill.tasks.consistency import DiscreteConfig, StagedConfig, consistency_distillation, consistency_training
from distill.tasks.continuous_consistency import continuous_consistency
from distill.tasks.critic import AdversarialConfig
from distill.tasks.denoising import denoising
from distill.tasks.dmd import DMDConfig, DMDTask, FewStepConfig
from distill.tasks.knowledge_distillation import knowledge_distillation
from distill.tasks.ladd import LADDTask
from distill.tasks.mean_flow import mean_flow
from distill.tasks.student import BatchConfig, Draw
from distill.tasks.truncated_consistency import truncated_consistency
from distill.training.trainer import Task, TrainerConfig, trained
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning

NONE = Conditioning()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The data, the shape of the network and the length of training, shared by all methods."""

    draw: Draw
    size: int
    width: int = 128
    num_layers: int = 3
    batch: BatchConfig = field(default_factory=lambda: BatchConfig(size=512))
    num_steps: int = 3000
    teacher_steps: int = 6000
    lr: float = 1e-3
    quiet: bool = True

    def network(self) -> Perceptron:
        """Return a network with fixed initial weights."""
        torch.manual_seed(0)
        return Perceptron(self.size, width=self.width, num_layers=self.num_layers)

    def head(self) -> nn.Module:
        """Return a discriminator head, from hidden states to a logit, with fixed initial weights."""
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(self.width, self.width), nn.SiLU(), nn.Linear(self.width, 1))

    def train(self, task: Task, *, num_steps: int | None = None, **changes: Any) -> nn.Module:
        """Train for `num_steps` steps and return the averaged network."""
        steps = num_steps or self.num_steps
        config = TrainerConfig(
            **{"num_steps": steps, "lr": self.lr, "ema_decay": 0.995, "weight_decay": 0.0, "save_every": steps}
            | changes
        )
        return trained(task, config, quiet=self.quiet)


def train_teacher(setting: Setting) -> nn.Module:
    """Train the many-step teacher of the setting."""
    return setting.train(denoising(setting.network(), setting.draw, setting.batch), num_steps=setting.teacher_steps)


Make = Callable[[Setting, nn.Module], Task]
Samples = Callable[[int], Tensor]
"""Number of steps → samples, always from the same noise."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method with its settings.

    make: builds the student's task from a copy of the teacher. flow_map: whether it learns a flow map (see
    `integrated`). length: training steps, as a multiple of the setting's. trainer: changes to the setting's optimiser.
    """

    name: str
    make: Make
    flow_map: bool = False
    length: int = 1
    trainer: dict[str, Any] = field(default_factory=dict)

    def train_steps(self, setting: Setting) -> int:
        """Return the number of training steps."""
        return self.length * setting.num_steps

    def train(self, setting: Setting, teacher: nn.Module) -> nn.Module:
        """Train a student from the teacher and return it."""
        return setting.train(self.make(setting, teacher), num_steps=self.train_steps(setting), **self.trainer)

    def sampler(self, student: nn.Module, noise: Tensor) -> Samples:
        """Return the student's samples from `noise`, as a function of the number of steps."""

        def samples(num_steps: int) -> Tensor:
            levels = sampling_sigmas(num_steps)
            if self.flow_map:
                return integrated(student, noise, NONE, levels, flow_map=True)
            with torch.no_grad():
                return sampled(student, noise, NONE, levels, torch.Generator().manual_seed(4))

        return samples


Teacher = TypeVar("Teacher", bound=nn.Module)


def student_of(teacher: Teacher) -> Teacher:
    """Return a trainable copy."""
    return copy.deepcopy(teacher).requires_grad_(True)


def _knowledge(setting: Setting, teacher: nn.Module) -> Task:
    config = KnowledgeConfig(num_steps=4, substeps=8)
    return knowledge_distillation(student_of(teacher), teacher, setting.draw, setting.batch, config)


CONSISTENCY_STAGES = StagedConfig(num_steps=1, num_stages=8)
"""The smallest step from the beginning: larger steps would first lead the student away from the teacher's weights."""


def _consistency_training(setting: Setting, teacher: nn.Module) -> Task:
    return consistency_training(student_of(teacher), setting.draw, setting.batch, CONSISTENCY_STAGES)


def _consistency_distillation(setting: Setting, teacher: nn.Module) -> Task:
    return consistency_distillation(student_of(teacher), teacher, setting.draw, setting.batch, DiscreteConfig())


def truncated_after(first_stage: Method) -> Make:
    """Return the task of TCM after `first_stage`, which is trained when the task is made."""

    def make(setting: Setting, teacher: nn.Module) -> Task:
        first = first_stage.train(setting, teacher)
        config = TruncatedConfig()
        return truncated_consistency(student_of(first), first, setting.draw, setting.batch, config, CONSISTENCY_STAGES)

    return make


def _continuous(from_teacher: bool) -> Make:
    def make(setting: Setting, teacher: nn.Module) -> Task:
        config = ContinuousConfig(warm_up_steps=setting.num_steps // 3)
        source = teacher if from_teacher else None
        return continuous_consistency(student_of(teacher), setting.draw, setting.batch, config, teacher=source)

    return make


def _mean_flow(from_teacher: bool) -> Make:
    """Return MeanFlow with wider levels and no adaptive weight.

    One sampling step goes from 1 to 0; the paper's levels, chosen for images, hardly ever include that pair. The
    adaptive weight favours samples with a small error, which distorts the weights of the modes.
    """

    def make(setting: Setting, teacher: nn.Module) -> Task:
        source = teacher if from_teacher else None
        config = MeanFlowConfig(mean=0.0, std=2.0, apart_share=0.75, power=0.0)
        return mean_flow(student_of(teacher), setting.draw, setting.batch, config, teacher=source)

    return make


CRITIC_LR_SHARE = 20.0
"""Critic or heads relative to the student. A student that learns slowly compared with its critic (two time scales,
arXiv:1706.08500) ends closer to the data than one whose critic is updated more often."""


def _distribution(branch: AdversarialConfig | None, divergence: FDistillConfig | None = None) -> Make:
    def make(setting: Setting, teacher: nn.Module) -> Task:
        config = DMDConfig(
            student=FewStepConfig(num_steps=2, size=setting.batch.size),
            critic_updates=2,
            critic_lr_share=CRITIC_LR_SHARE,
            adversarial=branch,
            divergence=divergence,
        )
        head = None if branch is None else setting.head()
        return DMDTask(student_of(teacher), teacher, setting.draw, config, head=head)

    return make


def _ladd(setting: Setting, teacher: nn.Module) -> Task:
    heads = {layer: setting.head() for layer in range(setting.num_layers)}
    few_step = FewStepConfig(num_steps=2, size=setting.batch.size)
    config = LADDConfig(mean=0.0, std=1.5)  # lower levels than the paper's: without a codec the details are small
    return LADDTask(student_of(teacher), teacher, setting.draw, config, few_step, heads, heads_lr_share=CRITIC_LR_SHARE)


ADVERSARIAL_TRAINER = {"lr": 2e-5, "betas": (0.0, 0.99), "ema_decay": 0.998}
FROM_DATA_TRAINER = {"lr": 7e-5, "betas": (0.9, 0.99)}
"""Targets from pairs of data and noise are noisier than a teacher's predictions and need a lower learning rate."""

CONSISTENCY_TRAINING = Method(
    name="consistency_training", make=_consistency_training, length=2, trainer=FROM_DATA_TRAINER
)
METHODS = (
    Method(name="knowledge_distillation", make=_knowledge),
    CONSISTENCY_TRAINING,
    Method(name="consistency_distillation", make=_consistency_distillation),
    Method(name="tcm", make=truncated_after(CONSISTENCY_TRAINING), trainer=FROM_DATA_TRAINER),
    Method(name="sct", make=_continuous(False), trainer={"lr": 5e-4}),
    Method(name="scd", make=_continuous(True), trainer={"lr": 5e-4}),
    Method(name="mean_flow", make=_mean_flow(False), flow_map=True, trainer=FROM_DATA_TRAINER),
    Method(name="mean_flow_teacher", make=_mean_flow(True), flow_map=True, trainer={"lr": 2e-4, "betas": (0.9, 0.99)}),
    Method(name="dmd2", make=_distribution(None), trainer=ADVERSARIAL_TRAINER),
    Method(name="dmd2_gan", make=_distribution(AdversarialConfig()), trainer=ADVERSARIAL_TRAINER),
    Method(name="f_distill", make=_distribution(AdversarialConfig(), FDistillConfig()), trainer=ADVERSARIAL_TRAINER),
    Method(name="ladd", make=_ladd, length=2, trainer=ADVERSARIAL_TRAINER),
)
