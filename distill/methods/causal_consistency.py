"""Causal consistency distillation: a few-step causal student from a many-step causal teacher. Pure functions.

Consistency distillation (arXiv:2303.01469, eq. 7) on teacher-forced clips, as in Causal-Forcing: the causal teacher
takes one Euler step from sigma to sigma_next, and the student's x0 at sigma is trained towards the x0 that its moving
average predicts at sigma_next. At sigma_next = 0 the target is the end of the step itself, which ties the student to
the data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.methods.network import Network
from distill.methods.sampling import frame_mean
from distill.methods.teacher_forcing import teacher_forced_velocity
from world.model.patterns import TeacherForcing
from world.model.schedule import add_noise, euler_step, x0_from_velocity


def causal_consistency_loss(
    student: Network,
    target: Network,
    teacher: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    actions: Tensor,
    pattern: TeacherForcing,
    frames: Tensor,
    *,
    past: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean squared distance of x0 at neighbouring levels; only the student receives gradients.

    x0, noise `b f c h w`; sigma > sigma_next `b f`; frames bool `b f`: where the loss is taken; target: the student's
    moving average; past `b f c h w`: the past to condition on, instead of x0.
    """
    clean_level = torch.zeros_like(sigma)
    clean, noisy = x0 if past is None else past, add_noise(x0, noise, sigma)
    with torch.no_grad():
        teacher_v = teacher_forced_velocity(teacher, clean, noisy, sigma, clean_level, actions, pattern)
        stepped = euler_step(noisy, teacher_v, sigma, sigma_next)
        target_v = teacher_forced_velocity(target, clean, stepped, sigma_next, clean_level, actions, pattern)
        goal = x0_from_velocity(stepped, target_v, sigma_next)
    student_v = teacher_forced_velocity(student, clean, noisy, sigma, clean_level, actions, pattern)
    return frame_mean((x0_from_velocity(noisy, student_v, sigma) - goal).square(), frames, weights)
