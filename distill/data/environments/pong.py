"""Atari Pong through ale-py. Owns the crop, the frame skip and the reading of its RAM; knows no model.

The picture is the 160×192 part of the screen below the first two rows, halved to 80×96 by averaging 2×2 blocks, which
makes the ball 1×2 pixels. Frame skip 2 without sticky actions: 30 frames per second. A new game starts automatically
after each game. The pause of about a second before a serve is shortened to `PAUSE_FRAMES` (the emulator runs on
without recording, no button pressed), so that a world model's window is long enough to tell when the serve comes.

Oracle positions are centres in pixels of the 96×80 frame, read from RAM (addresses as in the Atari Annotated RAM
Interface, arXiv:1906.08226; offsets fitted to the screen). The position of a ball that is out of play is NaN.
"""

from __future__ import annotations

from pathlib import Path

import ale_py
import numpy as np
from ale_py import roms

from distill.data.environments.base import Control, EnvironmentSpec, Frame, Step
from world.card import Button
from world.errors import LightconeError

NOOP, UP, DOWN = 0, 3, 4
FRAME_SKIP = 2
CROP_TOP, CROP_HEIGHT = 2, 192
RAM_ENEMY_SCORE, RAM_PLAYER_SCORE, RAM_BALL_X, RAM_ENEMY_Y, RAM_PLAYER_Y, RAM_BALL_Y = 13, 14, 49, 50, 51, 54
FIELD_TOP, FIELD_BOTTOM = 34, 194
PAUSE_FRAMES, MAX_SKIPPED_FRAMES = 8, 200

SPEC = EnvironmentSpec(
    name="pong",
    title="Pong",
    description="Atari Pong: you are the green paddle on the right.",
    fps=30.0,
    height=CROP_HEIGHT // 2,
    width=80,
    buttons=(
        Button(name="up", label="Up", keys=("ArrowUp", "KeyW")),
        Button(name="down", label="Down", keys=("ArrowDown", "KeyS")),
    ),
    data_license=(
        "Frames rendered by the Arcade Learning Environment (GPL-2.0) from the Atari 2600 Pong ROM that ale-py carries "
        "for research; the ROM itself is not part of this repository."
    ),
    oracle_names=("ball_x", "ball_y", "paddle_y", "enemy_y", "score", "enemy_score"),
    continuing=True,
    pixelated=True,
)


class Pong:
    """Atari Pong at 30 frames per second with the buttons `up` and `down` (both together count as neither).

    height, width: ignored, since the frame size is fixed.
    """

    spec = SPEC

    def __init__(self, *, height: int = SPEC.height, width: int = SPEC.width) -> None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.setInt("frame_skip", FRAME_SKIP)
        self._restart = False
        self._paused_frames = 0
        self._aim = 0.0

    def reset(self, seed: int) -> Step:
        self._ale.setInt("random_seed", seed)
        self._ale.loadROM(_rom_path())
        self._restart, self._paused_frames = False, 0
        self._ale.act(NOOP)  # the very first picture still has the palette of the title screen
        return self._observe(0.0)

    def step(self, control: Control) -> Step:
        if self._restart:
            self._ale.reset_game()
        if self._paused_frames >= PAUSE_FRAMES:
            self._skip_to_serve()
        up, down = bool(control.buttons[0]), bool(control.buttons[1])
        reward = self._ale.act(UP if up and not down else DOWN if down and not up else NOOP)
        return self._observe(float(reward))

    def skilled_control(self, rng: np.random.Generator) -> Control:
        """Follow the ball with a randomly varying offset, so that the ball leaves the paddle at all angles."""
        ram = self._ale.getRAM()
        if rng.random() < 0.05:
            self._aim = float(rng.uniform(-9.0, 9.0))
        gap = float(ram[RAM_BALL_Y]) - float(ram[RAM_PLAYER_Y]) + self._aim
        playing = ram[RAM_BALL_Y] > 0
        return Control(np.array([playing and gap < -6, playing and gap > 6], np.bool_), np.zeros(0, np.float32))

    def snapshot(self) -> tuple[ale_py.ALEState, int]:
        """Return the emulator's state, so that several copies can continue from the same point."""
        return self._ale.cloneState(), self._paused_frames

    def restore(self, state: tuple[ale_py.ALEState, int]) -> None:
        """Continue from a `snapshot`, which may come from another instance."""
        self._ale.restoreState(state[0])
        self._paused_frames = state[1]
        self._restart = self._ale.game_over()

    def _skip_to_serve(self) -> None:
        for _ in range(MAX_SKIPPED_FRAMES):
            if self._ale.getRAM()[RAM_BALL_Y] > 0 or self._ale.game_over():
                break
            self._ale.act(NOOP)

    def _observe(self, reward: float) -> Step:
        self._restart = self._ale.game_over()
        self._paused_frames = self._paused_frames + 1 if self._ale.getRAM()[RAM_BALL_Y] == 0 else 0
        return Step(_halve(self._ale.getScreenRGB()), reward, self._restart, _read_oracle(self._ale.getRAM()))


def _rom_path() -> Path:
    path = roms.get_rom_path("pong")
    if path is None:
        raise LightconeError("ale-py carries no Pong ROM: install ale-py 0.9 or newer")
    return path


def _halve(screen: Frame) -> Frame:
    crop = screen[CROP_TOP : CROP_TOP + CROP_HEIGHT].astype(np.uint16)  # 192 160 3
    return ((crop[0::2, 0::2] + crop[1::2, 0::2] + crop[0::2, 1::2] + crop[1::2, 1::2] + 2) // 4).astype(np.uint8)


def _read_oracle(ram: np.ndarray) -> np.ndarray:
    ball_x, ball_top = float(ram[RAM_BALL_X]) - 49.0, float(ram[RAM_BALL_Y]) - 14.0
    in_play = ball_x >= 0 and FIELD_TOP <= ball_top <= FIELD_BOTTOM - 4
    return np.array(
        [
            ball_x / 2 if in_play else np.nan,
            (ball_top + 1.0 - CROP_TOP) / 2 if in_play else np.nan,
            _paddle_centre(float(ram[RAM_PLAYER_Y])),
            _paddle_centre(float(ram[RAM_ENEMY_Y])),
            float(ram[RAM_PLAYER_SCORE]),
            float(ram[RAM_ENEMY_SCORE]),
        ],
        np.float32,
    )


def _paddle_centre(ram_y: float) -> float:
    top = min(max(ram_y - 14.0, FIELD_TOP), FIELD_BOTTOM)
    bottom = min(max(ram_y + 2.0, FIELD_TOP), FIELD_BOTTOM)
    return ((top + bottom - 1) / 2 - CROP_TOP) / 2
