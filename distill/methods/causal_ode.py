"""Causal ODE regression: a causal student learns the end points of a teacher's trajectories. Pure functions.

CausVid (arXiv:2412.07772, §4.3); Self-Forcing starts from it. The trajectory generator solves the teacher's
probability-flow ODE over clips after a clean prefix and stores the states at the student's levels. The student sees
each frame's state at a level drawn per frame, given the end points of the earlier frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.knowledge_distillation import KnowledgeConfig, student_levels
from distill.methods.network import Network, predict_velocity
from distill.methods.sampling import frame_mean
from distill.methods.teacher_forcing import teacher_forced_velocity
from world.model.patterns import TeacherForcing
from world.model.schedule import euler_step, expand, sampling_sigmas, x0_from_velocity
from world.model.transformer import Conditioning


@dataclass(frozen=True, slots=True)
class Trajectories:
    """states `s + 1 b f c h w`, the last one x0; frames bool `b f`: the generated ones (the others are data); actions
    `b f a`."""

    states: Tensor
    frames: Tensor
    actions: Tensor


@torch.no_grad()
def clip_trajectories(
    teacher: Network, x0: Tensor, noise: Tensor, frames: Tensor, actions: Tensor, config: KnowledgeConfig
) -> Trajectories:
    """Solve a bidirectional teacher's ODE by Euler steps, from noise `b f c h w` in `frames`; the others stay x0."""
    fine = sampling_sigmas(config.num_steps * config.substeps, config.shift).float()
    mask, cond = expand(frames, x0).bool(), Conditioning(actions=actions)
    x = torch.where(mask, noise, x0)
    states = [x]
    for i in range(len(fine) - 1):
        now, after = fine[i] * frames, fine[i + 1] * frames
        x = euler_step(x, predict_velocity(teacher, x, now, cond), now, after)
        if (i + 1) % config.substeps == 0:
            states.append(x)
    return Trajectories(torch.stack(states), frames, actions)


def causal_ode_loss(
    student: Network, trajectories: Trajectories, stage: Tensor, pattern: TeacherForcing, config: KnowledgeConfig
) -> Tensor:
    """Return the squared error of x0 predicted from each frame's state number `stage` (int64 `b f`, < `num_steps`)."""
    end = trajectories.states[-1]
    index = expand(stage, end).long().expand_as(end)[None]
    noisy = trajectories.states.take_along_dim(index, dim=0)[0]
    sigma = student_levels(config).to(end)[stage]
    clean = torch.zeros_like(sigma)
    velocity = teacher_forced_velocity(student, end, noisy, sigma, clean, trajectories.actions, pattern)
    error = (x0_from_velocity(noisy, velocity, sigma) - end).square()
    return 0.5 * frame_mean(error, trajectories.frames)
