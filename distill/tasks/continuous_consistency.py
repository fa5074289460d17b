"""Continuous-time consistency (sCT and sCD) as a task. Owns draws and the learned weighting; the loss is in
`methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.methods.continuous_consistency import (
    ContinuousConfig,
    LevelWeight,
    continuous_consistency_losses,
    trig_times,
    warm_up,
)
from distill.methods.network import Network
from distill.methods.sampling import randn_like
from distill.tasks.student import BatchConfig, Draw


class ContinuousConsistencyTask:
    """sCD with a teacher, sCT without (arXiv:2410.11081). The weighting of levels is learned with the student."""

    optimised: ClassVar = {"student": 1.0, "weighting": 1.0}
    averaged = "student"

    def __init__(
        self,
        student: nn.Module,
        draw: Draw,
        batch: BatchConfig,
        config: ContinuousConfig,
        *,
        teacher: Network | None = None,
    ) -> None:
        self.weighting = LevelWeight()
        self.modules: Mapping[str, nn.Module] = {"student": student, "weighting": self.weighting}
        self.student, self.teacher = student, teacher
        self.draw = draw
        self.batch, self.config = batch, config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        x0, cond = self.draw(self.batch.size, generator)
        t = trig_times(self.batch.size, generator, self.config)
        noise, share = randn_like(x0, generator), warm_up(step, self.config)
        losses = continuous_consistency_losses(
            self.student, x0, noise, t, cond, self.config, teacher=self.teacher, share=share
        )
        weight = self.weighting(t)
        yield "student", (weight.detach().exp() * losses).mean(), {"unweighted_loss": float(losses.detach().mean())}
        yield "weighting", (weight.exp() * losses.detach() - weight).mean(), {}
