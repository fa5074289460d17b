"""Trajectory-based distillation of any network as trainer tasks. Owns draws, targets and schedules; the losses are in
`methods`.

For data without frames: `draw` gives samples, the network is whatever answers the contract. Each function takes the
student to train, which starts from the teacher's weights where the method distills.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.methods.consistency import (
    ConsistencyLossConfig,
    consistency_distillation_loss,
    consistency_training_loss,
    next_level,
)
from distill.methods.continuous_consistency import (
    ContinuousConfig,
    continuous_consistency_loss,
    trig_times,
    warm_up,
)
from distill.methods.flow_matching import denoising_loss
from distill.methods.knowledge_distillation import KnowledgeConfig, knowledge_distillation_loss, ode_path
from distill.methods.mean_flow import MeanFlowConfig, mean_flow_levels, mean_flow_loss
from distill.methods.network import Network
from distill.methods.sampling import logit_normal_sigma, randn_like
from distill.methods.truncated_consistency import TruncatedConfig, truncated_consistency_loss, truncated_levels
from world.schedule import sampling_sigmas
from world.transformer import Conditioning

Draw = Callable[[int, torch.Generator], tuple[Tensor, Conditioning]]
"""(how many, generator) → samples `b …` of the data, scaled to unit deviation, and what each is conditioned on."""

Loss = Callable[[int, torch.Generator], Tensor]
"""(training step, generator) → loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Levels:
    """Noise levels in training: logit-normal, kept off both ends, where the losses of a whole trajectory divide by
    zero."""

    mean: float = 0.0
    std: float = 1.6
    ends: float = 1e-3

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        sigma = logit_normal_sigma(batch, generator, mean=self.mean, std=self.std)
        return sigma.clamp(self.ends, 1 - self.ends)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """size: samples a step. levels: of losses that leave their draw open."""

    size: int = 1024
    levels: Levels = field(default_factory=Levels)


class StudentTask:
    """One network, one loss. target: a copy of it that follows at `target_decay`, saved with it."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(
        self, student: nn.Module, loss: Loss, *, target: nn.Module | None = None, target_decay: float = 0.0
    ) -> None:
        followers = {} if target is None else {"target": target.requires_grad_(False)}
        self.modules: Mapping[str, nn.Module] = {"student": student, **followers}
        self.loss = loss
        self.target_decay = target_decay

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        yield "student", self.loss(step, generator), {}
        target = self.modules.get("target")
        if target is not None:
            with torch.no_grad():
                for mean, value in zip(target.parameters(), self.modules["student"].parameters(), strict=True):
                    mean.lerp_(value, 1 - self.target_decay)


def denoising(student: nn.Module, draw: Draw, batch: BatchConfig) -> StudentTask:
    """A teacher from data."""

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        return denoising_loss(student, x0, randn_like(x0, generator), batch.levels.draw(batch.size, generator), cond)

    return StudentTask(student, loss)


def knowledge_distillation(
    student: nn.Module,
    teacher: Network,
    draw: Draw,
    batch: BatchConfig,
    config: KnowledgeConfig,
    *,
    num_pairs: int = 20_000,
    seed: int = 0,
) -> StudentTask:
    """The pairs are made at once, at the price of `num_pairs` of the teacher's solutions."""
    generator = torch.Generator().manual_seed(seed)
    x0, cond = draw(num_pairs, generator)
    if cond.actions is not None or cond.text is not None:
        raise ValueError("knowledge distillation here keeps pairs without conditioning: draw without any")
    path = ode_path(teacher, randn_like(x0, generator), cond, config)

    def loss(_: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(num_pairs, (batch.size,), generator=generator)
        stage = torch.randint(config.num_steps, (batch.size,), generator=generator)
        return knowledge_distillation_loss(student, path[:, rows], stage, cond, config)

    return StudentTask(student, loss)


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedConfig:
    """num_stages: of the shrinking step, spread over `num_steps` training steps."""

    num_steps: int
    num_stages: int = 8
    consistency: ConsistencyLossConfig = field(default_factory=ConsistencyLossConfig)

    def stage(self, step: int) -> int:
        return min(self.num_stages - 1, step * self.num_stages // self.num_steps)


def consistency_training(student: nn.Module, draw: Draw, batch: BatchConfig, config: StagedConfig) -> StudentTask:
    """From data, usually on from a teacher's weights (arXiv:2406.14548)."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        sigma = batch.levels.draw(batch.size, generator)
        lower = next_level(sigma, config.stage(step), config.consistency)
        noise = randn_like(x0, generator)
        return consistency_training_loss(student, x0, noise, sigma, lower, cond, config.consistency)

    return StudentTask(student, loss)


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscreteConfig:
    """num_levels between 1 and 0; target_decay of the moving average (arXiv:2303.01469, §5: N = 18, µ = 0.95 …)."""

    num_levels: int = 18
    shift: float = 1.0
    target_decay: float = 0.95
    consistency: ConsistencyLossConfig = field(default_factory=ConsistencyLossConfig)


def consistency_distillation(
    student: nn.Module, teacher: Network, draw: Draw, batch: BatchConfig, config: DiscreteConfig
) -> StudentTask:
    levels = sampling_sigmas(config.num_levels, config.shift).float()
    target = copy.deepcopy(student)

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        index = torch.randint(config.num_levels, (batch.size,), generator=generator)
        noise = randn_like(x0, generator)
        pair = levels[index], levels[index + 1]
        return consistency_distillation_loss(student, target, teacher, x0, noise, *pair, cond, config.consistency)

    return StudentTask(student, loss, target=target, target_decay=config.target_decay)


def truncated_consistency(
    student: nn.Module,
    first_stage: Network,
    draw: Draw,
    batch: BatchConfig,
    config: TruncatedConfig,
    schedule: StagedConfig,
) -> StudentTask:
    """On from a consistency model, which answers below the cutoff. Its step is the last of its own schedule."""

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        sigma = truncated_levels(batch.levels.draw(batch.size, generator), generator, config)
        lower = next_level(sigma, schedule.num_stages - 1, config.consistency)
        return truncated_consistency_loss(
            student, first_stage, x0, randn_like(x0, generator), sigma, lower, cond, config
        )

    return StudentTask(student, loss)


def continuous_consistency(
    student: nn.Module, draw: Draw, batch: BatchConfig, config: ContinuousConfig, *, teacher: Network | None = None
) -> StudentTask:
    """sCD with a teacher, sCT without."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        t = trig_times(batch.size, generator, config)
        noise, share = randn_like(x0, generator), warm_up(step, config)
        return continuous_consistency_loss(student, x0, noise, t, cond, config, teacher=teacher, share=share)

    return StudentTask(student, loss)


def mean_flow(
    student: nn.Module, draw: Draw, batch: BatchConfig, config: MeanFlowConfig, *, teacher: Network | None = None
) -> StudentTask:
    """From a teacher, or from data."""

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        t, r = mean_flow_levels(batch.size, generator, config)
        return mean_flow_loss(student, x0, randn_like(x0, generator), t, r, cond, config, teacher=teacher)

    return StudentTask(student, loss)
