"""Actions recorded beside a video. Owns the sidecar's format and the keys assigned to its buttons; opens no video.

`clip.actions.jsonl` beside `clip.mp4` is UTF-8 text with one JSON object per video frame, `{"buttons": ["up"],
"axes": [0.5]}` (both keys are optional, others are ignored): the action that led to that frame. Either all videos have
a sidecar or none has.
"""

from __future__ import annotations

import codecs
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

MAX_AXIS = 1e6
MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class SidecarActions:
    """The actions of one video, frame by frame: `buttons` sets of names, `axes` float32 `t m`."""

    buttons: list[frozenset[str]]
    axes: NDArray[np.float32]


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of the video `path`."""
    return path.with_suffix(".actions.jsonl")


def read_sidecars(paths: Sequence[Path]) -> list[SidecarActions]:
    """Read the sidecars of all videos; without any sidecar, return empty actions.

    Raises DatasetError naming every sidecar that is missing or cannot be read.
    """
    without = [path for path in paths if not sidecar_path(path).exists()]
    if len(without) == len(paths):
        return [SidecarActions([], np.zeros((0, 0), np.float32)) for _ in paths]
    if without:
        raise DatasetError(
            "\n".join(f"{path} has no {sidecar_path(path).name}, others have one" for path in without)
            + ": provide sidecars for all videos or for none"
        )
    found, problems = [], []
    for path in paths:
        try:
            found.append(_read(sidecar_path(path)))
        except DatasetError as exc:
            problems.append(str(exc))
    if problems:
        raise DatasetError("\n".join(problems))
    widths = {path.name: actions.axes.shape[1] for path, actions in zip(paths, found, strict=True)}
    if len(set(widths.values())) > 1:
        raise DatasetError(f"videos differ in the number of axes: {widths}; record the same axes for all")
    return found


def _read(path: Path) -> SidecarActions:
    buttons: list[frozenset[str]] = []
    axes: list[list[float]] = []
    for number, line in enumerate(_lines(path), 1):
        try:
            names, values = _action(line)
        except ValueError as exc:
            raise DatasetError(f"{path}, line {number}: {exc}") from exc
        if axes and len(values) != len(axes[0]):
            raise DatasetError(f"{path}, line {number}: {len(values)} axes, the first line has {len(axes[0])}")
        buttons.append(names)
        axes.append(values)
    if not buttons:
        raise DatasetError(f"{path} is empty: write one line per video frame")
    return SidecarActions(buttons, np.array(axes, np.float32))


def _lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file, without a byte-order mark and without empty lines at the end."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DatasetError(f"{path} is written in UTF-16: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise DatasetError(
            f"{path}, line {line}: byte 0x{data[exc.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from exc
    return text.rstrip().split("\n") if text.strip() else []


def _action(line: str) -> tuple[frozenset[str], list[float]]:
    """Return the buttons and axes of one line. Raises ValueError saying what is wrong with it."""
    try:
        action = json.loads(line)
    except (ValueError, RecursionError):
        action = None
    if not isinstance(action, dict) or (action and action.keys().isdisjoint(("buttons", "axes"))):
        raise ValueError(f'expected {{"buttons": […], "axes": […]}}, got {line.strip()[:MAX_SHOWN]!r}')
    names, values = action.get("buttons", []), action.get("axes", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"buttons are {names!r}, expected a list of names")
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"axes are {values!r}, expected a list of numbers")
    if not all(abs(value) <= MAX_AXIS for value in values):
        raise ValueError(f"axes are {values!r}, expected finite numbers up to {MAX_AXIS:g}")
    return frozenset(names), [float(value) for value in values]


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
