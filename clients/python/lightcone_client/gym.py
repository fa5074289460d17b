"""A world as a Gymnasium environment: one step is one chunk, in lock-step with the server. Needs gymnasium.

Owns the spaces and what an episode is. The server plays no games: it knows no reward and no end, so both are 0 and
False unless `judge` says otherwise; `max_steps` ends an episode by truncation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lightcone_client.messages import Frame
from lightcone_client.sync import SyncSession, play

Picture = NDArray[np.uint8]
Judge = Callable[[Picture], tuple[float, bool]]
"""From a picture uint8 `h w 3` to (reward, whether the episode has ended)."""

PRESSED = 0.5


class LightconeEnv(gymnasium.Env[Picture, Any]):
    """A world of the server at `url`. Observations are its pictures, uint8 `h w 3`.

    actions: "buttons" is `Discrete` where the world knows one button at a time (0 is none), else `MultiBinary`; axes
    rest. "all" is `Box`: first a number per button in [0, 1], pressed above 0.5, then one per axis in its range.
    starts: the world's starts that `reset` chooses from (all by default). encoding: "png" is exact, "jpeg" smaller.
    A chunk of several pictures is one step; its last picture is observed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as gymnasium declares it

    def __init__(
        self,
        url: str,
        world: str,
        *,
        actions: Literal["buttons", "all"] = "buttons",
        starts: tuple[int, ...] | None = None,
        judge: Judge | None = None,
        max_steps: int | None = None,
        encoding: Literal["jpeg", "png"] = "png",
        render_mode: str | None = None,
    ) -> None:
        if actions not in ("buttons", "all"):
            raise ValueError(f"actions {actions!r}: choose buttons or all")
        self._open = contextlib.ExitStack()
        self._session: SyncSession = self._open.enter_context(
            play(url, world=world, pacing="lockstep", encoding=encoding)
        )
        info = self._session.world
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": info.fps / info.chunk_frames}
        self.observation_space = spaces.Box(0, 255, (info.height, info.width, 3), np.uint8)
        self.action_space = self._make_action_space(actions)
        self._starts = starts if starts is not None else tuple(range(max(1, len(info.starts))))
        self._judge = judge
        self._max_steps = max_steps
        self._num_steps = 0
        self._frame: Frame | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Picture, dict[str, Any]]:
        """Another episode; `seed` fixes start and noise. options: `{"start": index}` chooses the start."""
        super().reset(seed=seed)
        index = int(self._starts[int(self.np_random.integers(len(self._starts)))])
        index = int((options or {}).get("start", index))
        self._session.start(index=index, seed=int(self.np_random.integers(2**31)))
        self._num_steps = 0
        receipt = self._session.last_receipt
        first = 0 if receipt is None or receipt.frame is None else receipt.frame
        frame = self._session.frame()
        while frame.index < first:  # of the run before
            frame = self._session.frame()
        return self._observe(frame)

    def step(self, action: Any) -> tuple[Picture, float, bool, bool, dict[str, Any]]:
        """One chunk under `action`."""
        buttons, axes = self._pressed(action)
        picture, info = self._observe(self._session.advance(buttons, axes)[-1])
        self._num_steps += 1
        reward, terminated = self._judge(picture) if self._judge else (0.0, False)
        truncated = self._max_steps is not None and self._num_steps >= self._max_steps
        return picture, float(reward), bool(terminated), truncated, info

    def render(self) -> Any:
        """The last picture, uint8 `h w 3`."""
        return None if self._frame is None else self._frame.picture

    @property
    def last_frame(self) -> Frame | None:
        """The frame last observed, with its timings; None before the first `reset`."""
        return self._frame

    def close(self) -> None:
        """Leave the server."""
        self._open.close()

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

    def _pressed(self, action: Any) -> tuple[list[str], dict[str, float]]:
        """What is held and moved, from an action of the space."""
        info = self._session.world
        names = [button.name for button in info.buttons]
        if isinstance(self.action_space, spaces.Discrete):
            return ([names[int(action) - 1]] if int(action) else []), {}
        values = np.asarray(action, np.float64)
        if values.shape != self.action_space.shape:
            raise ValueError(f"action {action!r}: expected one of {self.action_space}")
        held = [name for name, value in zip(names, values[: len(names)], strict=True) if value > PRESSED]
        return held, {axis.name: float(value) for axis, value in zip(info.axes, values[len(names) :], strict=False)}
