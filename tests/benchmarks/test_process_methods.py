"""All causal methods, on the process with a known conditional law.

Rollouts of a student trained with the benchmark's settings must follow that law; those of a sabotaged method must not.
The quick toys train shorter, with fewer clips per step; `make check` runs them.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.distillation import causal_methods
from benchmarks.distillation.causal_comparison import NUM_ROLLOUTS, PRETRAINING_STEPS, law_floor
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
from benchmarks.distillation.comparison import STUDENT_STEPS, TEACHER_STEPS
from benchmarks.distillation.process import ProcessClips, law_distance, rolled_out
from distill.methods import flow_matching
from distill.methods import teacher_forcing as teacher_forcing_losses
from distill.methods.causal_consistency import causal_consistency_loss
from distill.methods.causal_ode import Trajectories
from distill.tasks import causal_ode, causvid, self_forcing
from world.model.transformer import Transformer

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.slow

FARTHEST = 2.0
"""Limit of a student's distance from the law, as a multiple of the teacher-forced network's best at any step count."""

FORCED = {"teacher_forcing": teacher_forcing, "diffusion_forcing": diffusion_forcing}
"""Methods that need no teacher and sample in many steps."""
FEW_STEP = {method.name: method for method in CAUSAL_METHODS}
NAMES = [*FORCED, *FEW_STEP]


def distances(
    student: Transformer, counts: tuple[int, ...], *, renoise: bool, num_rollouts: int = NUM_ROLLOUTS
) -> dict[int, float]:
    """Return the distance from the law by number of steps."""
    clips = ProcessClips(FRAMES).draw(num_rollouts, torch.Generator().manual_seed(3))
    roll = partial(rolled_out, student, clips, shift=1.0, renoise=renoise)
    found = {steps: law_distance(roll(steps), clips.actions) for steps in counts}
    logger.info("%s", found)
    return found


@dataclass(frozen=True)
class Reference:
    """The pretrained networks and the limit of a good student's distance."""

    pretrained: Pretrained
    farthest: float

    def distances(self, name: str) -> dict[int, float]:
        """Train a student by method `name`; return its distances by number of steps."""
        if name in FORCED:
            return distances(train(FORCED[name](), PRETRAINING_STEPS), (TEACHER_STEPS[-1],), renoise=False)
        method = FEW_STEP[name]
        student = train(method.make(self.pretrained), method.num_steps, **method.trainer)
        return distances(student, STUDENT_STEPS, renoise=method.renoise)

    def good(self, found: dict[int, float]) -> bool:
        return min(found.values()) <= self.farthest


@cache
def reference() -> Reference:
    causal = train(teacher_forcing(), PRETRAINING_STEPS)
    best = min(distances(causal, TEACHER_STEPS, renoise=False).values())
    logger.info("floor %s, the teacher's best %.4f", law_floor(), best)
    teacher = train(bidirectional_teacher(network()), PRETRAINING_STEPS)
    return Reference(Pretrained(teacher=teacher, causal=causal), FARTHEST * best)


@pytest.mark.toy
@pytest.mark.parametrize("method", NAMES)
def test_rollouts_of_a_causal_student_follow_the_law(method: str) -> None:
    found = reference().distances(method)
    assert reference().good(found), (found, reference().farthest)


Break = Callable[[pytest.MonkeyPatch], None]


def _flipped(module: Any, name: str) -> Break:
    def flip(patch: pytest.MonkeyPatch) -> None:
        real = getattr(module, name)
        patch.setattr(module, name, lambda *args, **named: -real(*args, **named))

    return flip


def _ends_of_other_clips(name: str) -> Break:
    def exchange(patch: pytest.MonkeyPatch) -> None:
        real = getattr(causal_ode, name)

        def trajectories(*args: Any) -> Trajectories:
            found: Trajectories = real(*args)
            states = torch.cat([found.states[:-1], found.states[-1:].roll(1, dims=1)])
            return replace(found, states=states)

        patch.setattr(causal_ode, name, trajectories)

    return exchange


def _stale_target(patch: pytest.MonkeyPatch) -> None:
    """Compute the target with the initial network throughout."""
    real = causal_consistency_loss
    initial: list[Any] = []

    def loss(student: Any, target: Any, *rest: Any, **named: Any) -> Tensor:
        initial[:] = initial or [copy.deepcopy(target)]
        return real(student, initial[0], *rest, **named)

    patch.setattr("distill.tasks.causal_consistency.causal_consistency_loss", loss)


BROKEN: dict[str, Break] = {
    "teacher_forcing": _flipped(teacher_forcing_losses, "velocity"),
    "diffusion_forcing": _flipped(flow_matching, "velocity"),
    "causal_ode": _ends_of_other_clips("clip_trajectories"),
    "causal_ode_noisy_past": _ends_of_other_clips("clip_trajectories"),
    "causal_ode_causal_teacher": _ends_of_other_clips("past_trajectories"),
    "causal_consistency": _stale_target,
    "causvid": _flipped(causvid, "dmd_gradient"),
    "self_forcing": _flipped(self_forcing, "dmd_gradient"),
    "self_forcing_long": _flipped(self_forcing, "dmd_gradient"),
}


@pytest.mark.toy
@pytest.mark.parametrize("method", NAMES)
def test_a_broken_causal_method_is_detected(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = reference()  # before the method is broken
    BROKEN[method](monkeypatch)
    found = trained.distances(method)
    assert not trained.good(found), (found, trained.farthest)


QUICK_BATCH, QUICK_PRETRAINING, QUICK_ROLLOUTS = 64, 300, 2000
QUICK_STEPS = dict.fromkeys(FEW_STEP, 150) | {"causal_consistency": 250, "causvid": 250}
QUICK_COUNTS, QUICK_FARTHEST = (1, 2), 0.2
"""Numbers of steps, and the limit of the distance at one of them. Without training, students are near 0.4 in two
steps. Every method is below 0.14, every sabotaged variant above 0.27."""
QUICK_TRAINER: dict[str, Any] = {"lr": 2e-3, "ema_decay": 0.98}
QUICK_CHANGES: dict[str, dict[str, Any]] = {
    "causal_ode": {"ema_decay": 0.97},
    "causal_ode_noisy_past": {"ema_decay": 0.97},
    "causal_ode_causal_teacher": {"ema_decay": 0.97},
    "causal_consistency": {"ema_decay": 0.97},
    "causvid": {"lr": 2e-4, "ema_decay": 0.97},
    "self_forcing": {"lr": 2e-4, "ema_decay": 0.97},
    "self_forcing_long": {"lr": 2e-4, "ema_decay": 0.97},
}
"""Settings for the short training: larger learning rates and shorter averages."""


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal_methods, "BATCH", QUICK_BATCH)


@cache
def quick_pretrained() -> Pretrained:
    """Networks trained with small batches; call it under `small_batches`."""
    teacher = train(bidirectional_teacher(network()), QUICK_PRETRAINING, **QUICK_TRAINER)
    return Pretrained(teacher=teacher, causal=train(teacher_forcing(), QUICK_PRETRAINING, **QUICK_TRAINER))


def quick_distance(name: str, pretrained: Pretrained) -> float:
    """Train a student by method `name` in small; return its least distance."""
    measure = partial(distances, num_rollouts=QUICK_ROLLOUTS)
    if name in FORCED:
        student = train(FORCED[name](), QUICK_PRETRAINING, **QUICK_TRAINER)
        return min(measure(student, (TEACHER_STEPS[-1],), renoise=False).values())
    method = FEW_STEP[name]
    student = train(method.make(pretrained), QUICK_STEPS[name], **method.trainer | QUICK_CHANGES[name])
    return min(measure(student, QUICK_COUNTS, renoise=method.renoise).values())


@pytest.mark.quick_toy
@pytest.mark.parametrize("method", NAMES)
@pytest.mark.usefixtures("small_batches")
def test_rollouts_of_a_quick_causal_student_follow_the_law(method: str) -> None:
    assert quick_distance(method, quick_pretrained()) <= QUICK_FARTHEST


@pytest.mark.quick_toy
@pytest.mark.parametrize("method", NAMES)
@pytest.mark.usefixtures("small_batches")
def test_a_quick_student_of_a_broken_causal_method_is_detected(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained = quick_pretrained()  # before the method is broken
    BROKEN[method](monkeypatch)
    assert quick_distance(method, pretrained) > QUICK_FARTHEST
