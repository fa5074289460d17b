"""The task of one network that is trained with one loss on data without frames. Owns batch settings; knows no loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.methods.sampling import logit_normal_sigma
from world.model.transformer import Conditioning

Draw = Callable[[int, torch.Generator], tuple[Tensor, Conditioning]]
"""(number, generator) → samples `b …` of the data, scaled to unit deviation, and their conditioning."""

Loss = Callable[[int, torch.Generator], Tensor]
"""(training step, generator) → loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Levels:
    """Distribution of noise levels in training: logit-normal, at least `ends` away from 0 and 1, where losses over a
    whole trajectory divide by zero."""

    mean: float = 0.0
    std: float = 1.6
    ends: float = 1e-3

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw `batch` levels."""
        sigma = logit_normal_sigma(batch, generator, mean=self.mean, std=self.std)
        return sigma.clamp(self.ends, 1 - self.ends)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """size: samples per training step. levels: for losses that do not prescribe how levels are drawn."""

    size: int = 1024
    levels: Levels = field(default_factory=Levels)


class StudentTask:
    """One network, one loss. target: a copy of the network that follows it as a moving average with `target_decay`; it
    is saved with the network."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(
        self, student: nn.Module, loss: Loss, *, target: nn.Module | None = None, target_decay: float = 0.0
    ) -> None:
        followers = {} if target is None else {"target": target.requires_grad_(False)}
        self.modules: Mapping[str, nn.Module] = {"student": student, **followers}
        self.loss = loss
        self.target_decay = target_decay

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        yield "student", self.loss(step, generator), {}

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target towards the student."""
        target = self.modules.get("target")
        if target is not None:
            for mean, value in zip(target.parameters(), self.modules["student"].parameters(), strict=True):
                mean.lerp_(value, 1 - self.target_decay)
