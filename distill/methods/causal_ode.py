"""Causal ODE regression: a causal student learns the end points of a teacher's trajectories. Pure functions.

Self-Forcing starts from it. The teacher's probability-flow ODE is solved over clips, and the states at the student's
levels are stored; from each frame's state, at a level drawn per chunk, the student predicts its end point. The past
that it is given, and the teacher, differ:

- CausVid (arXiv:2412.07772, §4.3): a bidirectional teacher; the past are the earlier frames' states at their levels.
- A clean past: the end points of the earlier frames. Under a bidirectional teacher an end point also depends on the
  noise of later frames, which the student does not see, so it learns a conditional mean (arXiv:2602.02214, §3).
- Causal-Forcing (arXiv:2602.02214): an autoregressive teacher solves each chunk given the data before it, and the
  student is given the same. Then one state has one end point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.knowledge_distillation import KnowledgeConfig, student_levels
from distill.methods.network import Network, predict_velocity
from distill.methods.sampling import frame_mean
from distill.methods.teacher_forcing import CleanPastNetwork, teacher_forced_velocity
from world.model.patterns import Banded, TeacherForcing
from world.model.schedule import euler_step, expand, sampling_sigmas, x0_from_velocity
from world.model.transformer import Conditioning


@dataclass(frozen=True, slots=True)
class Trajectories:
    """states `s + 1 b f c h w`, the last one x0; frames bool `b f`: the generated ones (the others are data); actions
    `b f a`; past `b f c h w`: the clean frames to condition on, end points or data."""

    states: Tensor
    frames: Tensor
    actions: Tensor
    past: Tensor


def clip_trajectories(
    teacher: Network, x0: Tensor, noise: Tensor, frames: Tensor, actions: Tensor, config: KnowledgeConfig
) -> Trajectories:
    """Solve a bidirectional teacher's ODE by Euler steps, from noise `b f c h w` in `frames`; the others stay x0."""
    states = _solved(teacher, x0, noise, frames, actions, config)
    return Trajectories(states, frames, actions, states[-1])


def past_trajectories(
    teacher: Network,
    x0: Tensor,
    noise: Tensor,
    frames: Tensor,
    actions: Tensor,
    pattern: TeacherForcing,
    config: KnowledgeConfig,
) -> Trajectories:
    """Solve an autoregressive teacher's ODE by Euler steps: each chunk of `frames` from its noise, given the data x0
    `b f c h w` before it."""
    states = _solved(CleanPastNetwork(teacher, x0, pattern), x0, noise, frames, actions, config)
    return Trajectories(states, frames, actions, x0)


@torch.no_grad()
def _solved(
    network: Network, x0: Tensor, noise: Tensor, frames: Tensor, actions: Tensor, config: KnowledgeConfig
) -> Tensor:
    """Return the states at the student's levels, `s + 1 b f c h w`."""
    fine = sampling_sigmas(config.num_steps * config.substeps, config.shift).to(x0)
    cond = Conditioning(actions=actions)
    x = torch.where(expand(frames, x0).bool(), noise, x0)
    states = [x]
    for i in range(len(fine) - 1):
        now, after = fine[i] * frames, fine[i + 1] * frames
        x = euler_step(x, predict_velocity(network, x, now, cond), now, after)
        if (i + 1) % config.substeps == 0:
            states.append(x)
    return torch.stack(states)


def causal_ode_loss(
    student: Network,
    trajectories: Trajectories,
    stage: Tensor,
    pattern: TeacherForcing | Banded,
    config: KnowledgeConfig,
) -> Tensor:
    """Return the squared error of x0 predicted from each frame's state number `stage` (int64 `b f`, ≤ `num_steps`).

    pattern: under `TeacherForcing` the past is clean, under `Banded` it is the earlier frames' states. Frames at
    state `num_steps` are at level 0; they are part of a noisy past only and carry no loss.
    """
    end, frames = trajectories.states[-1], trajectories.frames
    index = expand(stage, end).long().expand_as(end)[None]
    noisy = trajectories.states.take_along_dim(index, dim=0)[0]
    sigma = student_levels(config).to(end)[stage] * frames
    if isinstance(pattern, Banded):
        velocity = predict_velocity(student, noisy, sigma, Conditioning(actions=trajectories.actions), pattern)
    else:
        clean = torch.zeros_like(sigma)
        velocity = teacher_forced_velocity(
            student, trajectories.past, noisy, sigma, clean, trajectories.actions, pattern
        )
    error = (x0_from_velocity(noisy, velocity, sigma) - end).square()
    return 0.5 * frame_mean(error, frames & (sigma > 0))
