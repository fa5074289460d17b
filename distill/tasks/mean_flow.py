"""MeanFlow as a task. Owns draws; the loss is in `methods`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.methods.mean_flow import MeanFlowConfig, mean_flow_levels, mean_flow_loss
from distill.methods.network import Network
from distill.methods.sampling import randn_like
from distill.tasks.student import BatchConfig, Draw, StudentTask


def mean_flow(
    student: nn.Module, draw: Draw, batch: BatchConfig, config: MeanFlowConfig, *, teacher: Network | None = None
) -> StudentTask:
    """Return a task that learns from a teacher, or without one from data."""

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        t, r = mean_flow_levels(batch.size, generator, config)
        if x0.ndim == 5:  # clips: a Transformer takes one level per frame
            t, r = (level[:, None].repeat(1, x0.shape[1]) for level in (t, r))
        return mean_flow_loss(student, x0, randn_like(x0, generator), t, r, cond, config, teacher=teacher)

    return StudentTask(student, loss)
