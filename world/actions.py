"""User actions, frame by frame. Owns the action tensor type; does not know which keys produce it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from world.errors import ShapeError


def described(tensor: Tensor | None) -> str:
    """Return a tensor's type and shape, such as "uint8 (16, 96, 80, 3)", for a line that people read."""
    return "None" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


@dataclass(frozen=True, slots=True)
class Actions:
    """Actions of `b` sessions over `f` frames. The action at frame t is the one that *led to* frame t.

    buttons: bool, `b f n`. axes: float32, `b f m`. Either may have zero columns.
    """

    buttons: Tensor
    axes: Tensor

    def __post_init__(self) -> None:
        if self.buttons.ndim != 3 or self.axes.ndim != 3 or self.buttons.shape[:2] != self.axes.shape[:2]:
            raise ShapeError(
                f"actions need buttons `b f n` and axes `b f m` with equal b and f; "
                f"got {tuple(self.buttons.shape)} and {tuple(self.axes.shape)}"
            )

    @property
    def batch(self) -> int:
        return int(self.buttons.shape[0])

    @property
    def num_frames(self) -> int:
        return int(self.buttons.shape[1])

    def __repr__(self) -> str:
        num_buttons, num_axes = self.buttons.shape[2], self.axes.shape[2]
        return f"Actions({self.batch} x {self.num_frames} frames, {num_buttons} buttons, {num_axes} axes)"

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Actions:
        """Select sessions (batch rows)."""
        return Actions(self.buttons[rows], self.axes[rows])

    def frames(self, start: int, stop: int | None = None) -> Actions:
        """Select frames `start:stop` of every session."""
        return Actions(self.buttons[:, start:stop], self.axes[:, start:stop])

    def repeat(self, num_frames: int) -> Actions:
        """Hold the last frame's action for `num_frames` frames."""
        return Actions(self.buttons[:, -1:].expand(-1, num_frames, -1), self.axes[:, -1:].expand(-1, num_frames, -1))

    def to(self, device: torch.device | str) -> Actions:
        return Actions(self.buttons.to(device), self.axes.to(device))

    def vector(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return buttons (0 or 1) and axes, concatenated: `b f (n + m)`."""
        return torch.cat([self.buttons.to(dtype), self.axes.to(dtype)], dim=-1)

    @staticmethod
    def none(batch: int, num_frames: int, num_buttons: int, num_axes: int = 0) -> Actions:
        """Return actions with no button pressed and every axis at zero."""
        return Actions(
            torch.zeros(batch, num_frames, num_buttons, dtype=torch.bool), torch.zeros(batch, num_frames, num_axes)
        )

    @staticmethod
    def cat(parts: Iterable[Actions], dim: int = 0) -> Actions:
        """Join along sessions (`dim=0`) or frames (`dim=1`)."""
        parts = list(parts)
        return Actions(torch.cat([p.buttons for p in parts], dim), torch.cat([p.axes for p in parts], dim))


torch.serialization.add_safe_globals([Actions])  # so that `torch.load` reads it without `weights_only=False`
