"""Distil a student on a teacher's ODE solutions. Owns the pairs and draws; the loss is in `methods`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.methods.knowledge_distillation import KnowledgeConfig, knowledge_distillation_loss, ode_path
from distill.methods.network import Network
from distill.methods.sampling import randn_like
from distill.tasks.student import BatchConfig, Draw, StudentTask


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
    """Return a task on `num_pairs` solutions of the teacher, which are computed at once. Raises ValueError for data
    with conditioning."""
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
