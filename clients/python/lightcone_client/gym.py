"""A world as a Gymnasium environment: one step is one chunk, in lock-step with the server. Needs gymnasium.

Owns the spaces and the episodes. A world model has neither rewards nor terminal states, so the reward is 0 and
`terminated` is False unless `reward_function` computes them; `max_steps` truncates an episode.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lightcone_client.errors import ActionError
from lightcone_client.messages import Frame
from lightcone_client.sync import SyncSession, play

Picture = NDArray[np.uint8]
RewardFunction = Callable[[Picture], tuple[float, bool]]
"""Maps a picture, uint8 `h w 3`, to (reward, terminated)."""
Judge = RewardFunction
"""Deprecated name of `RewardFunction`."""

PRESS_THRESHOLD = 0.5
ROUNDING = 1e-6


class LightconeEnv(gymnasium.Env[Picture, Any]):
    """A world of the server at `url`. Observations are its pictures, uint8 `h w 3`.

    actions: with "buttons" the action space is `Discrete` for a world that allows one button at a time (0 presses
    none), else `MultiBinary`; the axes do not move. With "all" it is `Box`: first one number per button in [0, 1],
    pressed above 0.5, then one per axis in its range. starts: the world's starts that `reset` chooses from (default:
    all). reward_function: maps a picture to (reward, terminated). encoding: "png" is lossless, "jpeg" smaller.
    A step generates one chunk; the observation is its last picture. `judge` is the deprecated name of
    `reward_function`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # declared like this by gymnasium

    def __init__(
        self,
        url: str,
        world: str,
        *,
        actions: Literal["buttons", "all"] = "buttons",
        starts: tuple[int, ...] | None = None,
        reward_function: RewardFunction | None = None,
        max_steps: int | None = None,
        encoding: Literal["jpeg", "png"] = "png",
        render_mode: str | None = None,
        judge: RewardFunction | None = None,
    ) -> None:
        if judge is not None:
            warnings.warn("LightconeEnv(judge=…) is now reward_function=…", DeprecationWarning, stacklevel=2)
        if actions not in ("buttons", "all"):
            raise ValueError(f"actions {actions!r}: choose 'buttons' or 'all'")
        self._exit_stack = contextlib.ExitStack()
        self._session: SyncSession = self._exit_stack.enter_context(
            play(url, world=world, pacing="lockstep", encoding=encoding)
        )
        info = self._session.world
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": info.fps / info.chunk_frames}
        self.observation_space = spaces.Box(0, 255, (info.height, info.width, 3), np.uint8)
        self.action_space = self._make_action_space(actions)
        self._starts = starts if starts is not None else tuple(range(max(1, len(info.starts))))
        self._reward_function = reward_function or judge
        self._max_steps = max_steps
        self._num_steps = 0
        self._frame: Frame | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Picture, dict[str, Any]]:
        """Start an episode; `seed` fixes its start and noise. options: `{"start": index}` chooses the start."""
        super().reset(seed=seed)
        index = int(self._starts[int(self.np_random.integers(len(self._starts)))])
        index = int((options or {}).get("start", index))
        self._session.start(index=index, seed=int(self.np_random.integers(2**31)))
        self._num_steps = 0
        return self._observe(self._session.frame())

    def step(self, action: Any) -> tuple[Picture, float, bool, bool, dict[str, Any]]:
        """Generate one chunk under `action`."""
        buttons, axes = self._input_of(action)
        picture, info = self._observe(self._session.advance(buttons, axes)[-1])
        self._num_steps += 1
        reward, terminated = self._reward_function(picture) if self._reward_function else (0.0, False)
        truncated = self._max_steps is not None and self._num_steps >= self._max_steps
        return picture, float(reward), bool(terminated), truncated, info

    def render(self) -> Any:
        """Return the last observed picture, uint8 `h w 3`."""
        return None if self._frame is None else self._frame.picture

    @property
    def last_frame(self) -> Frame | None:
        """The last observed frame, with its timings; None before the first `reset`."""
        return self._frame

    def close(self) -> None:
        """Close the session."""
        self._exit_stack.close()

    def _observe(self, frame: Frame) -> tuple[Picture, dict[str, Any]]:
        self._frame = frame
        return frame.picture, {"run_frame": frame.run_frame}

    def _make_action_space(self, actions: str) -> spaces.Space[Any]:
        info = self._session.world
        if actions == "all":
            low = [0.0] * len(info.buttons) + [axis.low for axis in info.axes]
            high = [1.0] * len(info.buttons) + [axis.high for axis in info.axes]
            return spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        if info.exclusive_buttons:
            return spaces.Discrete(len(info.buttons) + 1)
        return spaces.MultiBinary(len(info.buttons))

    def _input_of(self, action: Any) -> tuple[list[str], dict[str, float]]:
        """Return the held buttons and the axis movements of an action. Raises ActionError for one that is not in the
        space."""
        info = self._session.world
        names = [button.name for button in info.buttons]
        values = _values(action, self.action_space)
        if isinstance(self.action_space, spaces.Discrete):
            return ([names[int(values) - 1]] if values else []), {}
        held = [name for name, value in zip(names, values[: len(names)], strict=True) if value > PRESS_THRESHOLD]
        return held, {axis.name: float(value) for axis, value in zip(info.axes, values[len(names) :], strict=False)}


def _values(action: Any, space: spaces.Space[Any]) -> NDArray[np.float64]:
    """Return an action of a space as numbers. Raises ActionError unless it is there, up to float32's rounding."""
    try:
        values = np.asarray(action, np.float64)
    except (TypeError, ValueError) as exc:
        raise ActionError(f"action {action!r}: expected one of {space}") from exc
    low: Any = 0
    high: Any = space.n - 1 if isinstance(space, spaces.Discrete) else 1
    is_whole = True
    if isinstance(space, spaces.Box):
        slack = ROUNDING * np.maximum(1.0, np.maximum(np.abs(space.low), np.abs(space.high)))
        low, high = space.low - slack, space.high + slack
    else:
        is_whole = bool(np.all(values == np.round(values)))
    # NaN is in no range.
    if values.shape != space.shape or not is_whole or not np.all((low <= values) & (values <= high)):
        raise ActionError(f"action {action!r}: expected one of {space}")
    return values
