"""Contexts that a world's sessions start from, and their file `starts.npz`. Owns its format and its check."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from world.actions import Actions, described
from world.card import WorldCard
from world.errors import CheckpointError, why_unreadable


@dataclass(frozen=True, slots=True)
class Start:
    """A context to start from: frames uint8 `t h w 3`, actions `1 t`."""

    name: str
    frames: Tensor
    actions: Actions

    def __repr__(self) -> str:
        return f"Start({self.name!r}, frames={described(self.frames)}, actions={self.actions})"


torch.serialization.add_safe_globals([Start])  # so that `torch.load` reads it without `weights_only=False`


def load_starts(path: Path, card: WorldCard) -> list[Start]:
    """Read the starts of a world with this card; none if there is no file. Raises CheckpointError."""
    if not path.exists():
        return []
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            names, frames, buttons, axes = (arrays[key] for key in ("names", "frames", "buttons", "axes"))
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError) as exc:
        reason = why_unreadable(exc)
        raise CheckpointError(f"{path} is not a whole file of starts: {reason}; fetch or train it again") from exc
    num_starts, length = len(names), frames.shape[1] if frames.ndim > 1 else 0
    expected = {
        "frames": (num_starts, length, card.height, card.width, 3),
        "buttons": (num_starts, length, len(card.buttons)),
        "axes": (num_starts, length, len(card.axes)),
    }
    for name, array, dtype in (
        ("frames", frames, np.uint8),
        ("buttons", buttons, np.bool_),
        ("axes", axes, np.float32),
    ):
        if array.dtype != dtype or array.shape != expected[name] or not length:
            raise CheckpointError(
                f"{path}: {name} are {array.dtype} {array.shape}, this world's are {np.dtype(dtype)} {expected[name]}; "
                "fetch or train it again"
            )
    if not np.isfinite(axes).all():
        raise CheckpointError(f"{path}: axes are not all finite; fetch or train it again")
    rows = zip(names, frames, buttons, axes, strict=True)
    return [
        Start(str(name), torch.from_numpy(shown), Actions(torch.from_numpy(held)[None], torch.from_numpy(moved)[None]))
        for name, shown, held, moved in rows
    ]


def save_starts(path: Path, starts: Sequence[Start]) -> None:
    """Write the starts, which must be equally long; do nothing if there are none."""
    if starts:
        np.savez_compressed(
            path,
            names=np.array([start.name for start in starts]),
            frames=np.stack([start.frames.numpy() for start in starts]),
            buttons=np.stack([start.actions.buttons[0].numpy() for start in starts]),
            axes=np.stack([start.actions.axes[0].numpy() for start in starts]),
        )
