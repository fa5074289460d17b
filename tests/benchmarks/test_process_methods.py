"""Every causal method on the process whose conditional law is known: a student that is trained as the benchmark trains
it rolls out by that law, and one whose method is broken does not."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

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
from distill.methods.causal_ode import Trajectories, clip_trajectories
from distill.tasks import causal_ode, causvid, self_forcing
from world.model.transformer import Transformer

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.slow

FARTHEST = 2.0
"""How far from the law a student may be, by the least distance of the teacher-forced network at any number of steps."""

FORCED = {"teacher_forcing": teacher_forcing, "diffusion_forcing": diffusion_forcing}
"""What needs no teacher, and many steps."""
FEW_STEP = {method.name: method for method in CAUSAL_METHODS}


@dataclass(frozen=True)
class Discriminator:
    given: Pretrained
    best: float

    def distances(self, name: str) -> dict[int, float]:
        """Of the student that method `name` trains, by its number of steps."""
        if name in FORCED:
            return distances(train(FORCED[name](), PRETRAINING_STEPS), (TEACHER_STEPS[-1],), renoise=False)
        method = FEW_STEP[name]
        student = train(method.make(self.given), method.num_steps, **method.trainer)
        return distances(student, STUDENT_STEPS, renoise=method.renoise)

    def good(self, found: dict[int, float]) -> bool:
        return min(found.values()) <= FARTHEST * self.best


def distances(student: Transformer, counts: tuple[int, ...], *, renoise: bool) -> dict[int, float]:
    clips = ProcessClips(FRAMES).draw(NUM_ROLLOUTS, torch.Generator().manual_seed(3))
    roll = partial(rolled_out, student, clips, shift=1.0, renoise=renoise)
    return {steps: law_distance(roll(steps), clips.actions) for steps in counts}


@cache
def discriminator() -> Discriminator:
    causal = train(teacher_forcing(), PRETRAINING_STEPS)
    best = min(distances(causal, TEACHER_STEPS, renoise=False).values())
    logger.info("floor %s, the teacher's best %.4f", law_floor(), best)
    return Discriminator(
        Pretrained(teacher=train(bidirectional_teacher(network()), PRETRAINING_STEPS), causal=causal), best
    )


@pytest.mark.parametrize("method", [*FORCED, *FEW_STEP])
def test_a_causal_student_rolls_out_by_the_law(method: str) -> None:
    found = discriminator().distances(method)
    logger.info("%s %s", method, found)
    assert discriminator().good(found), (found, discriminator().best)


Break = Callable[[pytest.MonkeyPatch], None]


def _flipped(module: Any, name: str) -> Break:
    def flip(patch: pytest.MonkeyPatch) -> None:
        real = getattr(module, name)
        patch.setattr(module, name, lambda *args, **named: -real(*args, **named))

    return flip


def _ends_of_other_clips(patch: pytest.MonkeyPatch) -> None:
    def trajectories(*args: Any) -> Trajectories:
        found = clip_trajectories(*args)
        states = torch.cat([found.states[:-1], found.states[-1:].roll(1, dims=1)])
        return Trajectories(states, found.frames, found.actions)

    patch.setattr(causal_ode, "clip_trajectories", trajectories)


def _stale_target(patch: pytest.MonkeyPatch) -> None:
    """The goal is told by the network that training began with."""
    real = causal_consistency_loss
    kept: list[Any] = []

    def loss(student: Any, target: Any, *rest: Any, **named: Any) -> Tensor:
        kept[:] = kept or [copy.deepcopy(target)]
        return real(student, kept[0], *rest, **named)

    patch.setattr("distill.tasks.causal_consistency.causal_consistency_loss", loss)


BROKEN: dict[str, Break] = {
    "teacher_forcing": _flipped(teacher_forcing_losses, "velocity"),
    "diffusion_forcing": _flipped(flow_matching, "velocity"),
    "causal_ode": _ends_of_other_clips,
    "causal_consistency": _stale_target,
    "causvid": _flipped(causvid, "dmd_gradient"),
    "self_forcing": _flipped(self_forcing, "dmd_gradient"),
    "self_forcing_long": _flipped(self_forcing, "dmd_gradient"),
}


@pytest.mark.parametrize("method", [*FORCED, *FEW_STEP])
def test_a_broken_causal_method_is_found_out(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = discriminator()
    BROKEN[method](monkeypatch)
    found = there.distances(method)
    logger.info("%s %s", method, found)
    assert not there.good(found), (found, there.best)
