"""Actions recorded beside a video. Owns the sidecar's format and the keys assigned to its buttons; opens no video.

`clip.actions.jsonl` beside `clip.mp4` has one JSON object per video frame, `{"buttons": ["up"], "axes": [0.5]}` (both
keys are optional): the action that led to that frame. Either all videos have a sidecar or none has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.clips import DatasetError
from world.card import Button

KEYS = {
    "up": ("ArrowUp", "KeyW"),
    "down": ("ArrowDown", "KeyS"),
    "left": ("ArrowLeft", "KeyA"),
    "right": ("ArrowRight", "KeyD"),
    "jump": ("Space",),
    "fire": ("Space",),
}


@dataclass(frozen=True, slots=True)
class SidecarActions:
    """The actions of one video, frame by frame: `buttons` sets of names, `axes` float32 `t m`."""

    buttons: list[frozenset[str]]
    axes: NDArray[np.float32]


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of the video `path`."""
    return path.with_suffix(".actions.jsonl")


def read_sidecars(paths: Sequence[Path]) -> list[SidecarActions]:
    """Read the sidecars of all videos; without any sidecar, return empty actions. Raises DatasetError."""
    without = [path for path in paths if not sidecar_path(path).exists()]
    if len(without) == len(paths):
        return [SidecarActions([], np.zeros((0, 0), np.float32)) for _ in paths]
    if without:
        raise DatasetError(
            f"{without[0]} has no {sidecar_path(without[0]).name}, others have one: "
            "provide sidecars for all videos or for none"
        )
    found = [_read(sidecar_path(path)) for path in paths]
    widths = {path.name: actions.axes.shape[1] for path, actions in zip(paths, found, strict=True)}
    if len(set(widths.values())) > 1:
        raise DatasetError(f"videos differ in the number of axes: {widths}; record the same axes for all")
    return found


def _read(path: Path) -> SidecarActions:
    buttons: list[frozenset[str]] = []
    axes: list[list[float]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            action = json.loads(line)
            names, values = action.get("buttons", []), [float(value) for value in action.get("axes", [])]
        except (AttributeError, TypeError, ValueError) as exc:
            raise DatasetError(
                f'{path}, line {number}: expected {{"buttons": […], "axes": […]}}, got {line!r}'
            ) from exc
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DatasetError(f"{path}, line {number}: buttons are {names!r}, expected a list of names")
        if axes and len(values) != len(axes[0]):
            raise DatasetError(f"{path}, line {number}: {len(values)} axes, the first line has {len(axes[0])}")
        buttons.append(frozenset(names))
        axes.append(values)
    if not buttons:
        raise DatasetError(f"{path} is empty: write one line per video frame")
    return SidecarActions(buttons, np.array(axes, np.float32))


def named_buttons(names: Sequence[str]) -> tuple[Button, ...]:
    """Assign keys to buttons: by name where `KEYS` or the name itself gives one, else the first free digit.

    No key is assigned to two buttons.
    """
    taken: set[str] = set()
    buttons = []
    for name in names:
        preferred = KEYS.get(name.lower(), ())
        if not preferred and len(name) == 1 and name.isascii() and name.isalnum():
            preferred = (f"Digit{name}" if name.isdigit() else f"Key{name.upper()}",)
        keys = [key for key in preferred if key not in taken]
        if not keys:
            keys = [key for key in (f"Digit{i}" for i in (*range(1, 10), 0)) if key not in taken][:1]
        taken.update(keys)
        buttons.append(Button(name=name, label=name.replace("_", " ").title(), keys=tuple(keys)))
    return tuple(buttons)
