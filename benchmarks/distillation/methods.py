"""All methods for data without frames, with the benchmark's settings. Owns the settings; `distill` has the methods."""

from __future__ import annotations

from torch import nn

from benchmarks.distillation.settings import Listing, Make, Method, Setting, student_of
from distill.methods.continuous_consistency import ContinuousConfig
from distill.methods.f_distill import FDistillConfig
from distill.methods.knowledge_distillation import KnowledgeConfig
from distill.methods.latent_adversarial import LADDConfig
from distill.methods.mean_flow import MeanFlowConfig
from distill.methods.truncated_consistency import TruncatedConfig
from distill.tasks.consistency import DiscreteConfig, StagedConfig, consistency_distillation, consistency_training
from distill.tasks.continuous_consistency import ContinuousConsistencyTask
from distill.tasks.critic import AdversarialConfig
from distill.tasks.dmd import DMDConfig, DMDTask, FewStepConfig
from distill.tasks.knowledge_distillation import knowledge_distillation
from distill.tasks.ladd import LADDTask
from distill.tasks.mean_flow import mean_flow
from distill.tasks.truncated_consistency import truncated_consistency
from distill.training.task import Task


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
    """Return sCD or sCT with the paper's numbers unscaled: those scaled to unit deviation, the library's defaults, are
    worse for points in the plane (docs/log.md)."""

    def make(setting: Setting, teacher: nn.Module) -> Task:
        config = ContinuousConfig(mean=-1.0, normaliser=0.1, warm_up_steps=setting.num_steps // 3)
        source = teacher if from_teacher else None
        return ContinuousConsistencyTask(student_of(teacher), setting.draw, setting.batch, config, teacher=source)

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

LISTINGS = (
    Listing(
        title="knowledge distillation",
        paper="arXiv:2101.02388",
        losses=("knowledge_distillation.py",),
        task="knowledge_distillation",
        when="with a teacher but no data; the simplest method that works",
        part="digits",
        rows=("knowledge_distillation",),
    ),
    Listing(
        title="consistency training",
        paper="arXiv:2303.01469, 2406.14548",
        losses=("consistency.py",),
        task="consistency_training",
        when="with data, and perhaps a teacher to start from",
        part="digits",
        rows=("consistency_training",),
    ),
    Listing(
        title="consistency distillation",
        paper="arXiv:2303.01469",
        losses=("consistency.py",),
        task="consistency_distillation",
        when="with a teacher and data",
        part="digits",
        rows=("consistency_distillation",),
    ),
    Listing(
        title="TCM",
        paper="arXiv:2410.14895",
        losses=("truncated_consistency.py",),
        task="truncated_consistency",
        when="a consistency model whose one-step samples should improve",
        part="digits",
        rows=("tcm",),
    ),
    Listing(
        title="sCT, sCD",
        paper="arXiv:2410.11081",
        losses=("continuous_consistency.py",),
        task="ContinuousConsistencyTask",
        when="without a grid of noise levels to choose; needs derivatives of the network",
        part="digits",
        rows=("sct", "scd"),
    ),
    Listing(
        title="MeanFlow",
        paper="arXiv:2505.13447",
        losses=("mean_flow.py",),
        task="mean_flow",
        when="one network for any number of steps; the network needs an input for the level it goes to",
        part="digits",
        rows=("mean_flow", "mean_flow_teacher"),
    ),
    Listing(
        title="DMD2",
        paper="arXiv:2405.14867",
        losses=("distribution_matching.py", "adversarial.py"),
        task="DMDTask",
        when="one to four steps; samples as good as the teacher's, or better with the GAN branch",
        part="digits",
        rows=("dmd2", "dmd2_gan"),
    ),
    Listing(
        title="f-distill",
        paper="arXiv:2502.15681",
        losses=("f_distill.py",),
        task="DMDTask",
        when="DMD2 that covers more modes, or keeps closer to some, depending on the divergence",
        part="digits",
        rows=("f_distill",),
    ),
    Listing(
        title="LADD",
        paper="arXiv:2403.12015",
        losses=("latent_adversarial.py",),
        task="LADDTask",
        when="sharpness matters more than coverage",
        part="digits",
        rows=("ladd",),
    ),
)
"""The lines of these methods in the table of `docs/training.md`, in order."""
