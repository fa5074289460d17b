"""The interface of an environment adapter. Owns the data types; knows no particular environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from world.card import Axis, Button
from world.codecs.state_channels import StateVariable

Frame = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentSpec:
    """What a world needs to know about the environment it imitates.

    continuing: the stream continues across the end of a game, which is then part of the world; otherwise a new episode
    begins after `done`, and no clip spans two episodes. exclusive_buttons: at most one button is pressed at a time.
    button_groups: otherwise, positions of buttons of which at most one is pressed. oracle_names: the true state that
    each step reports. state_variables: those of the oracle's values that the world is to model. pixelated: see
    WorldCard.
    """

    name: str
    title: str
    description: str
    fps: float
    height: int
    width: int
    buttons: tuple[Button, ...] = ()
    axes: tuple[Axis, ...] = ()
    exclusive_buttons: bool = True
    button_groups: tuple[tuple[int, ...], ...] = ()
    data_license: str
    oracle_names: tuple[str, ...] = ()
    state_variables: tuple[StateVariable, ...] = ()
    continuing: bool = False
    pixelated: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Control:
    """The action of one step: `buttons` bool `n`, `axes` float32 `m`."""

    buttons: NDArray[np.bool_]
    axes: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one step: `frame` uint8 `h w 3`; `oracle` float32, in the order of `spec.oracle_names`."""

    frame: Frame
    reward: float
    done: bool
    oracle: NDArray[np.float32]


class Environment(Protocol):
    """A source of frames. After `done` the adapter restarts its game by itself on the next step."""

    spec: EnvironmentSpec

    def reset(self, seed: int) -> Step:
        """Start a stream that depends only on the seed, and return its first frame."""
        ...

    def step(self, control: Control) -> Step:
        """Take one step under the control."""
        ...

    def skilled_control(self, rng: np.random.Generator) -> Control | None:
        """Return the next control of a purposeful policy, or None if the adapter has none."""
        ...


def idle_control(spec: EnvironmentSpec) -> Control:
    """Return the control with no button pressed and every axis at the point of its range nearest to zero."""
    return Control(
        np.zeros(len(spec.buttons), np.bool_),
        np.array([min(max(0.0, axis.low), axis.high) for axis in spec.axes], np.float32),
    )


def random_control(spec: EnvironmentSpec, rng: np.random.Generator) -> Control:
    """Draw a control at random.

    Of exclusive buttons, and of those in a group: one or none, all equally likely; each other button is pressed with
    probability ½. Axes are uniform over their range.
    """
    num_buttons = len(spec.buttons)
    groups = (tuple(range(num_buttons)),) if spec.exclusive_buttons else spec.button_groups
    buttons = np.zeros(num_buttons, np.bool_) if spec.exclusive_buttons else rng.random(num_buttons) < 0.5
    for group in groups:
        buttons[list(group)] = False
        choice = int(rng.integers(len(group) + 1))
        if choice < len(group):
            buttons[group[choice]] = True
    axes = np.array([rng.uniform(axis.low, axis.high) for axis in spec.axes], np.float32)
    return Control(buttons, axes)
