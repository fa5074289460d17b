"""Train, sample and time a teacher and its students on one set of data. Owns the order and the timing; the caller
defines the quality."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.distillation.methods import METHODS
from benchmarks.distillation.settings import NONE, Method, Samples, Setting, train_teacher
from distill.methods.sampling import integrated
from world.model.schedule import sampling_sigmas

STUDENT_STEPS = (1, 2, 4)
TEACHER_STEPS = (2, 4, 8, 16, 32, 50)
Quality = Callable[[Tensor], dict[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One method at one number of sampling steps.

    quality: figures by name. sample_s: seconds to draw all samples. train_s, train_steps: for this method alone,
    without the teacher it starts from; TCM's seconds include both of its stages, its steps only the second. train_s is
    None if unknown.
    """

    method: str
    num_steps: int
    quality: dict[str, float]
    sample_s: float
    train_s: float | None
    train_steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A row whose sampling is not timed yet. make: draws the samples."""

    method: str
    num_steps: int
    quality: dict[str, float]
    make: Callable[[], object]
    train_s: float | None
    train_steps: int


def compare(setting: Setting, quality: Quality, num_samples: int, methods: Iterable[Method] = METHODS) -> Iterator[Row]:
    """Yield the teacher at its step counts, then each method's student at 1, 2 and 4, all from the same noise."""
    return in_turns(list(_evaluated_all(setting, quality, num_samples, methods)))


def _evaluated_all(
    setting: Setting, quality: Quality, num_samples: int, methods: Iterable[Method]
) -> Iterator[Evaluated]:
    noise = torch.randn(num_samples, setting.size, generator=torch.Generator().manual_seed(3))
    started = time.perf_counter()
    teacher = train_teacher(setting)
    train_s = time.perf_counter() - started
    samples = teacher_samples(teacher, noise)
    yield from evaluated("teacher", TEACHER_STEPS, samples, quality, train_s, setting.teacher_steps)
    for method in methods:
        started = time.perf_counter()
        student = method.train(setting, teacher)
        train_s = time.perf_counter() - started
        steps = method.train_steps(setting)
        yield from evaluated(method.name, STUDENT_STEPS, method.sampler(student, noise), quality, train_s, steps)


def teacher_samples(teacher: nn.Module, noise: Tensor) -> Samples:
    """Return the teacher's samples by Euler steps, as a function of the number of steps."""
    return lambda num_steps: integrated(teacher, noise, NONE, sampling_sigmas(num_steps))


def evaluated(
    name: str, counts: tuple[int, ...], make: Samples, quality: Quality, train_s: float, train_steps: int
) -> Iterator[Evaluated]:
    """Yield one entry per number of steps, and print its quality; times follow after all training."""
    for num_steps in counts:
        found = quality(make(num_steps))
        figures = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
        print(f"{name:26s} {num_steps:3d}  {figures}  (trained in {train_s:.0f} s)", file=sys.stderr)
        yield Evaluated(
            method=name,
            num_steps=num_steps,
            quality=found,
            make=partial(make, num_steps),
            train_s=train_s,
            train_steps=train_steps,
        )


def in_turns(entries: Sequence[Evaluated], rounds: int = 5) -> Iterator[Row]:
    """Time the entries and yield their rows: in each round every entry draws its samples once; the median counts.

    The speed of a machine varies from minute to minute, so rows that are compared are timed over the same minutes.
    """
    times: list[list[float]] = [[] for _ in entries]
    for _ in range(rounds):
        for entry, taken in zip(entries, times, strict=True):
            started = time.perf_counter()
            entry.make()
            taken.append(time.perf_counter() - started)
    for entry, taken in zip(entries, times, strict=True):
        yield Row(
            method=entry.method,
            num_steps=entry.num_steps,
            quality=entry.quality,
            sample_s=statistics.median(taken),
            train_s=entry.train_s,
            train_steps=entry.train_steps,
        )
