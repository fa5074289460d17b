"""Losses that cannot train their module stop training at the first step, with the cause."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distill.training.checks import TrainingError
from distill.training.trainer import Trainer, TrainerConfig

X = torch.ones(4, 3)


class Regression:
    """The loss of one module, by a function of it."""

    averaged = "student"

    def __init__(self, student: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.optimised = {"student": 1.0}
        self.loss = loss

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        yield "student", self.loss(self.modules["student"]), {}


class Closing(nn.Module):
    """A wrapper whose copies call the original's network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 3)
        self.call: Callable[[Tensor], Tensor] = lambda x: self.net(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


class WithATeacher(nn.Module):
    """A student whose loss runs through a second network, which is not a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 3)
        self.teacher = (nn.Linear(3, 3),)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.teacher[0](self.net(x))
        return y


class Detached(nn.Module):
    """A network that gives another weight a gradient, but not its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x).detach()
        return y


def mean(student: nn.Module) -> Tensor:
    loss: Tensor = student(X).square().mean()
    return loss


@pytest.mark.parametrize(
    ("student", "loss", "cause"),
    [
        (copy.deepcopy(Closing()), mean, r"2 weights outside that module.*closure"),
        (WithATeacher(), mean, r"2 weights outside that module.*Freeze networks that are only read"),
        (nn.Linear(3, 3).requires_grad_(False), mean, "depends on no weight that is trained: its weights are frozen"),
        (Detached(), mean, "computed without gradient"),
        (nn.Linear(3, 3), lambda _: X.clone().requires_grad_(True).sum(), "gives no gradient to any of its weights"),
        (nn.Linear(3, 3), lambda student: 0.0 * mean(student), "step 0: every gradient is 0"),
    ],
    ids=["closure", "through a network that is not frozen", "frozen", "detached", "of other tensors", "zero"],
)
def test_a_loss_that_does_not_train_its_module_stops_training(
    tmp_path: Path, student: nn.Module, loss: Callable[[nn.Module], Tensor], cause: str
) -> None:
    with pytest.raises(TrainingError, match=cause):
        Trainer(Regression(student, loss), TrainerConfig(num_steps=3), tmp_path).run(quiet=True)
    assert not (tmp_path / "state.pt").exists()


def test_a_loss_through_a_frozen_network_trains(tmp_path: Path) -> None:
    student = WithATeacher()
    student.teacher[0].requires_grad_(False)
    assert Trainer(Regression(student, mean), TrainerConfig(num_steps=3), tmp_path).run(quiet=True)


def test_the_tensor_that_is_not_finite_is_named(tmp_path: Path) -> None:
    student = nn.ModuleDict({"first": nn.Linear(3, 3), "second": nn.Linear(3, 3, bias=False)})

    def loss(module: nn.Module) -> Tensor:
        first, second = module.children()
        result: Tensor = first(X).sum() + torch.nan * second(X).sum()
        return result

    with pytest.raises(TrainingError, match=r"loss of student is nan, and 1 of its gradients .*first: second\.weight"):
        Trainer(Regression(student, loss), TrainerConfig(num_steps=3), tmp_path).run(quiet=True)
