"""What the comparisons of methods share: settings, methods and their listings. Knows no particular method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.distillation.perceptron import Perceptron
from distill.methods.sampling import integrated, sampled
from distill.tasks.denoising import denoising
from distill.tasks.student import BatchConfig, Draw
from distill.training.task import Task
from distill.training.trainer import TrainerConfig, trained
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning

NONE = Conditioning()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The data, the shape of the network and the length of training, shared by all methods."""

    draw: Draw
    size: int
    width: int = 128
    num_layers: int = 3
    batch: BatchConfig = field(default_factory=lambda: BatchConfig(size=512))
    num_steps: int = 3000
    teacher_steps: int = 6000
    lr: float = 1e-3
    quiet: bool = True

    def network(self) -> Perceptron:
        """Return a network with fixed initial weights."""
        torch.manual_seed(0)
        return Perceptron(self.size, width=self.width, num_layers=self.num_layers)

    def head(self) -> nn.Module:
        """Return a discriminator head, from hidden states to a logit, with fixed initial weights."""
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(self.width, self.width), nn.SiLU(), nn.Linear(self.width, 1))

    def train(self, task: Task, *, num_steps: int | None = None, **changes: Any) -> nn.Module:
        """Train for `num_steps` steps and return the averaged network."""
        steps = num_steps or self.num_steps
        config = TrainerConfig(
            **{"num_steps": steps, "lr": self.lr, "ema_decay": 0.995, "weight_decay": 0.0, "save_every": steps}
            | changes
        )
        return trained(task, config, quiet=self.quiet)


def train_teacher(setting: Setting) -> nn.Module:
    """Train the many-step teacher of the setting."""
    return setting.train(denoising(setting.network(), setting.draw, setting.batch), num_steps=setting.teacher_steps)


Make = Callable[[Setting, nn.Module], Task]
Samples = Callable[[int], Tensor]
"""Number of steps → samples, always from the same noise."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method with its settings.

    make: builds the student's task from a copy of the teacher. flow_map: whether it learns a flow map (see
    `integrated`). length: training steps, as a multiple of the setting's. trainer: changes to the setting's optimiser.
    """

    name: str
    make: Make
    flow_map: bool = False
    length: int = 1
    trainer: dict[str, Any] = field(default_factory=dict)

    def train_steps(self, setting: Setting) -> int:
        """Return the number of training steps."""
        return self.length * setting.num_steps

    def train(self, setting: Setting, teacher: nn.Module) -> nn.Module:
        """Train a student from the teacher and return it."""
        return setting.train(self.make(setting, teacher), num_steps=self.train_steps(setting), **self.trainer)

    def sampler(self, student: nn.Module, noise: Tensor) -> Samples:
        """Return the student's samples from `noise`, as a function of the number of steps."""

        def samples(num_steps: int) -> Tensor:
            levels = sampling_sigmas(num_steps)
            if self.flow_map:
                return integrated(student, noise, NONE, levels, flow_map=True)
            with torch.no_grad():
                return sampled(student, noise, NONE, levels, torch.Generator().manual_seed(4))

        return samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A line of the table of methods in `docs/training.md`, which `lightcone bench distill` writes.

    losses: files in `distill/methods/`. task: what trains it. when: what it is for. part, rows: the benchmark's part
    and the rows there that the last cell shows.
    """

    title: str
    paper: str
    losses: tuple[str, ...]
    task: str
    when: str
    part: str
    rows: tuple[str, ...]


Teacher = TypeVar("Teacher", bound=nn.Module)


def student_of(teacher: Teacher) -> Teacher:
    """Return a trainable copy."""
    return copy.deepcopy(teacher).requires_grad_(True)
