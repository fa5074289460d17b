"""Gymnasium's action spaces as buttons and axes. Owns the mapping in both directions; runs no environment.

A Discrete space has a button for each action, and action 0 is taken while none is pressed; environments known to have
an action that does nothing need no button for it (`NAMED_ACTIONS`). A MultiDiscrete component has a button for each
value but the first, which stands while none is pressed. A MultiBinary component is a button. A Box component is an axis
in [−1, 1], mapped linearly to its bounds, integers equally often; without bounds the value is unchanged. Dict and Tuple
put the controls of their parts side by side. Text, Sequence, Graph and OneOf have no mapping.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from distill.data.environments.base import Control
from world.card import Axis, Button
from world.errors import LightconeError

DIGITS = (*range(1, 10), 0)
MAX_CONTROLS = 1024
NAMED_ACTIONS: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "CarRacing": (
        ("right", "Right", ("ArrowRight", "KeyD")),
        ("left", "Left", ("ArrowLeft", "KeyA")),
        ("gas", "Gas", ("ArrowUp", "KeyW")),
        ("brake", "Brake", ("ArrowDown", "KeyS")),
    ),
    "LunarLander": (
        ("left", "Left engine", ("ArrowLeft", "KeyA")),
        ("main", "Main engine", ("ArrowUp", "KeyW")),
        ("right", "Right engine", ("ArrowRight", "KeyD")),
    ),
}
"""Discrete environments whose action 0 does nothing → (name, label, keys) of actions 1, 2, …"""


class UnsupportedEnvironmentError(LightconeError):
    """An environment cannot be made or run, renders no picture, or has an action space without a mapping."""


@dataclass(frozen=True, slots=True)
class Controls:
    """The controls of an action space, and how they become an action.

    groups: positions of buttons of which at most one is pressed at a time. native: buttons `n` and axes `m` → action.
    """

    buttons: tuple[Button, ...]
    axes: tuple[Axis, ...]
    groups: tuple[tuple[int, ...], ...]
    native: Callable[[Control], Any]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an action space: names of its buttons and axes, groups, and how its share of a control is read."""

    buttons: list[str]
    axes: list[str]
    groups: list[tuple[int, ...]]
    native: Callable[[NDArray[np.bool_], NDArray[np.float32]], Any]


def controls_of(env_id: str, space: spaces.Space[Any]) -> Controls:
    """Return the controls of an environment's action space. Raises UnsupportedEnvironmentError naming what it lacks."""
    named = next((names for key, names in NAMED_ACTIONS.items() if key in env_id), ())
    if named and isinstance(space, spaces.Discrete) and len(named) == int(space.n) - 1:
        buttons = tuple(Button(name=name, label=label, keys=keys) for name, label, keys in named)
        return Controls(buttons, (), (_whole(buttons),), lambda control: int(space.start) + _pressed(control.buttons))
    part = _mapped(env_id, space, "")
    if len(part.buttons) + len(part.axes) > MAX_CONTROLS:
        raise UnsupportedEnvironmentError(
            f"{env_id} has {len(part.buttons)} buttons and {len(part.axes)} axes, more than {MAX_CONTROLS} in all: "
            "wrap the environment to have fewer actions"
        )
    keys = [(f"Digit{digit}",) for digit in DIGITS] + [()] * len(part.buttons)
    return Controls(
        tuple(Button(name=name, label=_label(name), keys=key) for name, key in zip(part.buttons, keys, strict=False)),
        tuple(
            Axis(name=name, label=_label(name), low=-1.0, high=1.0, source=f"gamepad_{i}")
            for i, name in enumerate(part.axes)
        ),
        tuple(part.groups),
        lambda control: part.native(control.buttons, control.axes),
    )


def _mapped(env_id: str, space: spaces.Space[Any], prefix: str) -> _Part:
    match space:
        case spaces.Discrete():
            return _discrete(space, prefix)
        case spaces.MultiDiscrete():
            return _multi_discrete(space, prefix)
        case spaces.MultiBinary():
            return _multi_binary(space, prefix)
        case spaces.Box():
            return _box(env_id, space, prefix)
        case spaces.Dict():
            parts = {key: _mapped(env_id, inner, f"{prefix}{key}_") for key, inner in space.spaces.items()}
            return _side_by_side(list(parts.values()), lambda values: dict(zip(parts, values, strict=True)))
        case spaces.Tuple():
            return _side_by_side(
                [_mapped(env_id, inner, f"{prefix}{i}_") for i, inner in enumerate(space.spaces)], tuple
            )
    raise UnsupportedEnvironmentError(
        f"{env_id} has the action space {space}: {type(space).__name__} cannot be played with buttons and axes; wrap "
        "the environment to have Discrete, MultiDiscrete, MultiBinary or Box actions, or a Dict or Tuple of these"
    )


def _discrete(space: spaces.Discrete[Any], prefix: str) -> _Part:
    names = [f"{prefix}action{i}" for i in range(int(space.n))]
    return _Part(names, [], [_whole(names)], lambda buttons, _: int(space.start) + max(0, _pressed(buttons) - 1))


def _multi_discrete(space: spaces.MultiDiscrete[Any], prefix: str) -> _Part:
    counts, starts = space.nvec.ravel().tolist(), space.start.ravel()
    names: list[str] = []
    groups: list[tuple[int, ...]] = []
    for component, count in enumerate(counts):
        groups.append(tuple(range(len(names), len(names) + count - 1)))
        names += [f"{prefix}action{component}_{value}" for value in range(1, count)]

    def native(buttons: NDArray[np.bool_], _: NDArray[np.float32]) -> Any:
        values = [start + _pressed(buttons[list(group)]) for start, group in zip(starts, groups, strict=True)]
        return np.array(values, space.dtype).reshape(space.shape)

    return _Part(names, [], groups, native)


def _multi_binary(space: spaces.MultiBinary, prefix: str) -> _Part:
    names = [f"{prefix}button{i}" for i in range(int(np.prod(space.shape)))]
    return _Part(names, [], [], lambda buttons, _: buttons.astype(space.dtype).reshape(space.shape))


def _box(env_id: str, space: spaces.Box, prefix: str) -> _Part:
    if np.isnan(space.low).any() or np.isnan(space.high).any():
        raise UnsupportedEnvironmentError(f"{env_id} has the action space {space}, with bounds that are not numbers")
    low, high = _bounds(space)
    whole = space.dtype is not None and np.issubdtype(space.dtype, np.integer)

    def native(_: NDArray[np.bool_], axes: NDArray[np.float32]) -> Any:
        share = (np.clip(axes.astype(np.float64), -1.0, 1.0) + 1.0) / 2.0
        if whole:  # each integer has an equal part of the axis
            levels = np.floor(high) - np.ceil(low) + 1
            values = np.ceil(low) + np.clip(np.ceil(share * levels) - 1, 0, levels - 1)
        else:
            values = low * (1 - share) + high * share
        return np.clip(values.reshape(space.shape).astype(space.dtype), space.low, space.high)

    return _Part([], [f"{prefix}axis{i}" for i in range(int(np.prod(space.shape)))], [], native)


def _bounds(space: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values that −1 and 1 map to: the bounds, or a range of two at or around 0 where one is missing."""
    below, above = space.bounded_below.ravel(), space.bounded_above.ravel()
    low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
    only_low, only_high = np.maximum(low, -1.0), np.minimum(high, 1.0)
    return (
        np.where(below & above, low, np.where(below, only_low, np.where(above, only_high - 2.0, -1.0))),
        np.where(below & above, high, np.where(above, only_high, np.where(below, only_low + 2.0, 1.0))),
    )


def _side_by_side(parts: Sequence[_Part], joined: Callable[[list[Any]], Any]) -> _Part:
    button_ends = np.cumsum([0, *(len(part.buttons) for part in parts)]).tolist()
    axis_ends = np.cumsum([0, *(len(part.axes) for part in parts)]).tolist()

    def native(buttons: NDArray[np.bool_], axes: NDArray[np.float32]) -> Any:
        return joined(
            [
                part.native(buttons[button_ends[i] : button_ends[i + 1]], axes[axis_ends[i] : axis_ends[i + 1]])
                for i, part in enumerate(parts)
            ]
        )

    return _Part(
        [name for part in parts for name in part.buttons],
        [name for part in parts for name in part.axes],
        [
            tuple(start + i for i in group)
            for start, part in zip(button_ends, parts, strict=False)
            for group in part.groups
        ],
        native,
    )


def _whole(names: Sequence[object]) -> tuple[int, ...]:
    return tuple(range(len(names)))


def _pressed(buttons: NDArray[np.bool_]) -> int:
    """Return the number of the first pressed button, counted from 1, or 0 if none is pressed."""
    pressed = np.flatnonzero(buttons)
    return int(pressed[0]) + 1 if len(pressed) else 0


def _label(name: str) -> str:
    """Return "Action 3" for "action3", and "Arm axis 0" for "arm_axis0"."""
    words = re.sub(r"(?<=[a-z])(?=\d)", " ", name).replace("_", " ")
    return words[:1].upper() + words[1:]
