"""Train a teacher on data without frames. Owns draws; the loss is in `methods`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.methods.flow_matching import denoising_loss
from distill.methods.sampling import randn_like
from distill.tasks.student import BatchConfig, Draw, StudentTask


def denoising(student: nn.Module, draw: Draw, batch: BatchConfig) -> StudentTask:
    """Return a task that trains a teacher on data."""

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        return denoising_loss(student, x0, randn_like(x0, generator), batch.levels.draw(batch.size, generator), cond)

    return StudentTask(student, loss)
