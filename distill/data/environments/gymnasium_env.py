"""Any Gymnasium environment that renders RGB frames. Owns the mapping of its action space to buttons and axes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from distill.data.environments.base import Control, EnvironmentSpec, Frame, Step
from world.card import Axis, Button
from world.errors import LightconeError

PATCH = 16
DIGITS = (*range(1, 10), 0)
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
    """The environment renders no RGB frames or its action space has no mapping."""


class GymnasiumEnvironment:
    """Wraps `gymnasium.make(env_id, render_mode="rgb_array")`.

    Discrete actions become buttons. If action 0 is known to do nothing (`NAMED_ACTIONS`), it is taken when no button is
    pressed and has no button; otherwise every action has a button, and action 0 is taken when none is pressed. A
    one-dimensional box becomes axes in [−1, 1], mapped linearly to the bounds; an unbounded component takes the axis
    value unchanged. Frames are resized by area averaging to `height`×`width` (multiples of 16). Episodes restart
    automatically. Where an environment has a discrete variant (`continuous=False`), that variant is used.
    """

    def __init__(self, env_id: str, *, height: int = 64, width: int = 64, fps: float | None = None) -> None:
        if height % PATCH or width % PATCH:
            raise UnsupportedEnvironmentError(f"frame size {height}x{width}: both must be multiples of {PATCH}")
        self.env = _make(env_id)
        self._space = self.env.action_space
        buttons, axes = _controls(env_id, self._space)
        # if action 0 has no button, the first button is action 1
        self._first_action = int(isinstance(self._space, spaces.Discrete) and len(buttons) < int(self._space.n))
        native_fps = float(self.env.metadata.get("render_fps") or 30.0)
        self.spec = EnvironmentSpec(
            name=env_id.split("/")[-1].lower(),
            title=env_id,
            description=f"Gymnasium environment {env_id}.",
            fps=fps or min(native_fps, 60.0),
            height=height,
            width=width,
            buttons=buttons,
            axes=axes,
            data_license=f"Frames rendered by Gymnasium's {env_id}; see that environment's own licence.",
        )
        self._restart_seed: int | None = None
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int) -> Step:
        self._rng = np.random.default_rng(seed)
        self._restart_seed = None
        self.env.reset(seed=seed)
        return Step(self._render(), 0.0, False, np.zeros(0, np.float32))

    def step(self, control: Control) -> Step:
        if self._restart_seed is not None:
            self.env.reset(seed=self._restart_seed)
            self._restart_seed = None
        _, reward, terminated, truncated, _ = self.env.step(self._native_action(control))
        done = bool(terminated or truncated)
        if done:
            self._restart_seed = int(self._rng.integers(2**31))
        return Step(self._render(), float(reward), done, np.zeros(0, np.float32))

    def skilled_control(self, rng: np.random.Generator) -> Control | None:
        return None

    def _native_action(self, control: Control) -> Any:
        if isinstance(self._space, spaces.Discrete):
            pressed = np.flatnonzero(control.buttons)
            return int(self._space.start) + (int(pressed[0]) + self._first_action if len(pressed) else 0)
        assert isinstance(self._space, spaces.Box)
        low, high = _bounds(self._space)
        return (low + (np.clip(control.axes, -1.0, 1.0) + 1.0) / 2.0 * (high - low)).astype(self._space.dtype)

    def _render(self) -> Frame:
        frame = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise UnsupportedEnvironmentError(f"{self.spec.title} rendered {type(frame).__name__}, not an RGB array")
        picture = Image.fromarray(frame.astype(np.uint8)).resize(
            (self.spec.width, self.spec.height), Image.Resampling.BOX
        )
        return np.asarray(picture)


def _make(env_id: str) -> gymnasium.Env[Any, Any]:
    try:
        try:
            return gymnasium.make(env_id, render_mode="rgb_array", continuous=False)
        except TypeError:
            return gymnasium.make(env_id, render_mode="rgb_array")
    except gymnasium.error.Error as exc:
        raise UnsupportedEnvironmentError(
            f"cannot make Gymnasium environment {env_id!r}: {exc}. Check the id and the packages it needs."
        ) from exc


def _controls(env_id: str, space: spaces.Space[Any]) -> tuple[tuple[Button, ...], tuple[Axis, ...]]:
    if isinstance(space, spaces.Discrete):
        named = next((names for key, names in NAMED_ACTIONS.items() if key in env_id), None)
        if named is None or len(named) != int(space.n) - 1:
            keys = [(f"Digit{digit}",) for digit in DIGITS] + [()] * int(space.n)
            named = tuple((f"action{i}", f"Action {i}", keys[i]) for i in range(int(space.n)))
        return tuple(Button(name=name, label=label, keys=keys) for name, label, keys in named), ()
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        axes = (
            Axis(name=f"axis{i}", label=f"Axis {i}", low=-1.0, high=1.0, source=f"gamepad_{i}")
            for i in range(space.shape[0])
        )
        return (), tuple(axes)
    raise UnsupportedEnvironmentError(f"{env_id} has action space {space}; supported: Discrete and one-dimensional Box")


def _bounds(space: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values that −1 and 1 map to: the bounds, or −1 and 1 for a component that lacks one."""
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    return np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
