"""Knowledge distillation: regression onto a teacher's ODE solutions (arXiv:2101.02388). Pure functions.

The trajectory generator solves the teacher's probability-flow ODE from noise with Heun's method (arXiv:2206.00364,
algorithm 1) and stores the states at the student's levels; from each of them the student predicts the end point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.network import Network, predict_velocity, predict_x0
from world.model.schedule import euler_step, sampling_sigmas
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class KnowledgeConfig:
    """num_steps: the student's steps; states are stored at their levels. substeps: the teacher's steps for each of
    them. shift: of the levels."""

    num_steps: int = 1
    substeps: int = 48
    shift: float = 1.0


def student_levels(config: KnowledgeConfig) -> Tensor:
    """Return `num_steps + 1` levels falling from 1 to 0."""
    return sampling_sigmas(config.num_steps, config.shift)


@torch.no_grad()
def ode_path(teacher: Network, noise: Tensor, cond: Conditioning, config: KnowledgeConfig) -> Tensor:
    """Return the teacher's states at the student's levels, the last one x0: `s + 1 b …` from noise `b …`."""
    fine = sampling_sigmas(config.num_steps * config.substeps, config.shift)
    x, path = noise, [noise]
    for i in range(len(fine) - 1):
        now, after = (level.to(noise).expand(len(noise)) for level in (fine[i], fine[i + 1]))
        v = predict_velocity(teacher, x, now, cond)
        end = euler_step(x, v, now, after)
        if float(fine[i + 1]) > 0:
            end = euler_step(x, 0.5 * (v + predict_velocity(teacher, end, after, cond)), now, after)
        x = end
        if (i + 1) % config.substeps == 0:
            path.append(x)
    return torch.stack(path)


def knowledge_distillation_loss(
    student: Network, path: Tensor, stage: Tensor, cond: Conditioning, config: KnowledgeConfig
) -> Tensor:
    """Return half the mean squared error of x0 predicted from state number `stage` (int64 `b`, < `num_steps`).

    path: `s + 1 b …`.
    """
    rows = torch.arange(path.shape[1])
    levels = student_levels(config).to(path)
    x0 = predict_x0(student, path[stage, rows], levels[stage], cond)
    return 0.5 * (x0 - path[-1]).square().mean()
