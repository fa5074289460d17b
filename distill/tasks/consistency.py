"""Consistency training and distillation as tasks. Owns draws, targets and schedules; the losses are in `methods`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill.methods.consistency import (
    ConsistencyLossConfig,
    consistency_distillation_loss,
    consistency_training_loss,
    next_level,
)
from distill.methods.network import Network
from distill.methods.sampling import randn_like
from distill.tasks.student import BatchConfig, Draw, StudentTask
from world.model.schedule import sampling_sigmas


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedConfig:
    """The step between neighbouring noise levels shrinks in `num_stages` stages over `num_steps` training steps."""

    num_steps: int
    num_stages: int = 8
    consistency: ConsistencyLossConfig = field(default_factory=ConsistencyLossConfig)

    def stage(self, step: int) -> int:
        """Return the stage at a training step, from 0."""
        return min(self.num_stages - 1, step * self.num_stages // self.num_steps)


def consistency_training(student: nn.Module, draw: Draw, batch: BatchConfig, config: StagedConfig) -> StudentTask:
    """Return a task that trains on data, usually from a teacher's weights (arXiv:2406.14548)."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        sigma = batch.levels.draw(batch.size, generator)
        lower = next_level(sigma, config.stage(step), config.consistency)
        noise = randn_like(x0, generator)
        return consistency_training_loss(student, x0, noise, sigma, lower, cond, config.consistency)

    return StudentTask(student, loss)


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscreteConfig:
    """num_levels: noise levels from 1 to 0. target_decay: of the moving average (arXiv:2303.01469, §5: N = 18,
    µ = 0.95 …)."""

    num_levels: int = 18
    shift: float = 1.0
    target_decay: float = 0.95
    consistency: ConsistencyLossConfig = field(default_factory=ConsistencyLossConfig)


def consistency_distillation(
    student: nn.Module, teacher: Network, draw: Draw, batch: BatchConfig, config: DiscreteConfig
) -> StudentTask:
    """Return a task that distils a teacher on data; the target is the student's moving average."""
    levels = sampling_sigmas(config.num_levels, config.shift).float()
    target = copy.deepcopy(student)

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        index = torch.randint(config.num_levels, (batch.size,), generator=generator)
        noise = randn_like(x0, generator)
        pair = levels[index], levels[index + 1]
        return consistency_distillation_loss(student, target, teacher, x0, noise, *pair, cond, config.consistency)

    return StudentTask(student, loss, target=target, target_decay=config.target_decay)
