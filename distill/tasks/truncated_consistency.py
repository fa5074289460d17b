"""Truncated consistency training (TCM) as a task. Owns draws; the loss is in `methods`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.methods.consistency import next_level
from distill.methods.network import Network
from distill.methods.sampling import randn_like
from distill.methods.truncated_consistency import TruncatedConfig, truncated_consistency_loss, truncated_levels
from distill.tasks.consistency import StagedConfig
from distill.tasks.student import BatchConfig, Draw, StudentTask


def truncated_consistency(
    student: nn.Module,
    first_stage: Network,
    draw: Draw,
    batch: BatchConfig,
    config: TruncatedConfig,
    schedule: StagedConfig,
) -> StudentTask:
    """Return a task that continues from a consistency model, which answers below the cutoff. The step between levels is
    the last one of that model's schedule."""

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        sigma, pinned = truncated_levels(batch.size, generator, config)
        lower = next_level(sigma, schedule.num_stages - 1, config.consistency)
        noise = randn_like(x0, generator)
        return truncated_consistency_loss(student, first_stage, x0, noise, sigma, lower, pinned, cond, config)

    return StudentTask(student, loss)
