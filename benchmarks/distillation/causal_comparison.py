"""Train, roll out and time causal students on the process whose conditional law is known. Owns the order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.distillation.causal_methods import (
    CAUSAL_METHODS,
    FRAMES,
    Pretrained,
    bidirectional_teacher,
    diffusion_forcing,
    network,
    teacher_forcing,
    train,
)
from benchmarks.distillation.comparison import STUDENT_STEPS, TEACHER_STEPS, Evaluated, Row, evaluated, in_turns
from benchmarks.distillation.process import ProcessClips, law_distance, rolled_out
from distill.training.task import Task
from world.model.transformer import Transformer

NUM_ROLLOUTS = 4000
PRETRAINING_STEPS = 3000


def law_floor() -> dict[str, float]:
    """Return the figures of rollouts of the process itself."""
    exact = ProcessClips(FRAMES).draw(NUM_ROLLOUTS, torch.Generator().manual_seed(4))
    return {"law_distance": law_distance(exact.latents, exact.actions)}


def compare_causal(num_steps: int | None = None) -> Iterator[Row]:
    """Yield the rows of the teacher, of diffusion forcing and of each few-step student.

    The teacher-forced network counts as the teacher, at the teacher's step counts; the others are measured at 1, 2 and
    4 steps. num_steps: training steps for every network, for a quick look.
    """
    return in_turns(list(_evaluated_all(num_steps)))


def _evaluated_all(num_steps: int | None) -> Iterator[Evaluated]:
    pretraining = num_steps or PRETRAINING_STEPS
    causal, seconds = _timed(teacher_forcing, pretraining)
    yield from _evaluated("teacher", causal, TEACHER_STEPS, False, seconds, pretraining)
    forced, seconds = _timed(diffusion_forcing, pretraining)
    yield from _evaluated("diffusion_forcing", forced, STUDENT_STEPS, False, seconds, pretraining)
    pretrained = Pretrained(teacher=train(bidirectional_teacher(network()), pretraining), causal=causal)
    for method in CAUSAL_METHODS:
        steps = num_steps or method.num_steps
        student, seconds = _timed(partial(method.make, pretrained), steps, **method.trainer)
        yield from _evaluated(method.name, student, STUDENT_STEPS, method.renoise, seconds, steps)


def _timed(make: Callable[[], Task], num_steps: int, **trainer: object) -> tuple[Transformer, float]:
    started = time.perf_counter()
    return train(make(), num_steps, **trainer), time.perf_counter() - started


def _evaluated(
    name: str, student: Transformer, counts: tuple[int, ...], renoise: bool, train_s: float, train_steps: int
) -> Iterator[Evaluated]:
    clips = ProcessClips(FRAMES).draw(NUM_ROLLOUTS, torch.Generator().manual_seed(3))

    def rollouts(num_steps: int) -> Tensor:
        return rolled_out(student, clips, num_steps, shift=1.0, renoise=renoise)

    def quality(latents: Tensor) -> dict[str, float]:
        return {"law_distance": law_distance(latents, clips.actions)}

    return evaluated(name, counts, rollouts, quality, train_s, train_steps)
