"""Continuous-time consistency (sCT and sCD) as a task. Owns draws; the loss is in `methods`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.methods.continuous_consistency import ContinuousConfig, continuous_consistency_loss, trig_times, warm_up
from distill.methods.network import Network
from distill.methods.sampling import randn_like
from distill.tasks.student import BatchConfig, Draw, StudentTask


def continuous_consistency(
    student: nn.Module, draw: Draw, batch: BatchConfig, config: ContinuousConfig, *, teacher: Network | None = None
) -> StudentTask:
    """Return a task for sCD with a teacher, for sCT without."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        x0, cond = draw(batch.size, generator)
        t = trig_times(batch.size, generator, config)
        noise, share = randn_like(x0, generator), warm_up(step, config)
        return continuous_consistency_loss(student, x0, noise, t, cond, config, teacher=teacher, share=share)

    return StudentTask(student, loss)
