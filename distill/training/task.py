"""What is trained. Owns the interface between the training loop and a task; knows no loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Update = tuple[str, Tensor, dict[str, float]]
"""(module to update, loss, metrics)."""


class Task(Protocol):
    """Modules, and the losses that train them."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """All modules that are saved and resumed, by name."""
        ...

    @property
    def optimised(self) -> Mapping[str, float]:
        """Name of each module that has an optimiser → its learning-rate multiplier."""
        ...

    @property
    def averaged(self) -> str:
        """Name of the module whose exponential moving average is the product."""
        ...

    def losses(self, step: int, generator: torch.Generator) -> Iterator[Update]:
        """Yield (module to update, loss, metrics). The trainer back-propagates each loss and updates the module before
        it draws the next one. With gradient accumulation several such iterators advance together, update by update."""
        ...


@runtime_checkable
class Following(Protocol):
    """A task with networks that follow a trained one, as targets do."""

    def follow(self) -> None:
        """Move them. Called once a step, after all of its updates."""
        ...
