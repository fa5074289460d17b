"""Teacher and students on one set of data: trained, sampled, timed. Owns the order and the timing; what is good, the
caller says."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.distillation.methods import METHODS, NONE, Method, Samples, Setting, train_teacher
from distill.methods.sampling import integrated
from world.schedule import sampling_sigmas

STUDENT_STEPS = (1, 2, 4)
TEACHER_STEPS = (2, 4, 8, 16, 32, 50)
Quality = Callable[[Tensor], dict[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """quality: of `num_steps` steps, by name. sample_s: seconds for all samples. train_s, train_steps: of this method
    alone, without the teacher it starts from; TCM's seconds are of both its stages, its steps of the second. None where
    the seconds are not known."""

    method: str
    num_steps: int
    quality: dict[str, float]
    sample_s: float
    train_s: float | None
    train_steps: int


def compare(setting: Setting, quality: Quality, num_samples: int, methods: Iterable[Method] = METHODS) -> Iterator[Row]:
    """The teacher at its step counts, then each method's student at 1, 2 and 4, all from the same noise."""
    noise = torch.randn(num_samples, setting.size, generator=torch.Generator().manual_seed(3))
    started = time.perf_counter()
    teacher = train_teacher(setting)
    train_s = time.perf_counter() - started
    yield from rows("teacher", TEACHER_STEPS, teacher_samples(teacher, noise), quality, train_s, setting.teacher_steps)
    for method in methods:
        started = time.perf_counter()
        student = method.train(setting, teacher)
        train_s = time.perf_counter() - started
        steps = method.train_steps(setting)
        yield from rows(method.name, STUDENT_STEPS, method.sampler(student, noise), quality, train_s, steps)


def teacher_samples(teacher: nn.Module, noise: Tensor) -> Samples:
    return lambda num_steps: integrated(teacher, noise, NONE, sampling_sigmas(num_steps))


def rows(
    name: str, counts: tuple[int, ...], make: Samples, quality: Quality, train_s: float, train_steps: int
) -> Iterator[Row]:
    """One row for each number of steps."""
    for num_steps in counts:
        samples, sample_s = timed(make, num_steps)
        yield Row(
            method=name,
            num_steps=num_steps,
            quality=quality(samples),
            sample_s=sample_s,
            train_s=train_s,
            train_steps=train_steps,
        )


def timed(make: Samples, num_steps: int, repeats: int = 3) -> tuple[Tensor, float]:
    """The samples, and the median of the seconds that they took."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        made = make(num_steps)
        times.append(time.perf_counter() - started)
    return made, statistics.median(times)
