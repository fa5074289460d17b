"""A ball in a box and a paddle moved by two keys: the environment for tests, without dependencies. Owns its physics."""

from __future__ import annotations

import numpy as np

from distill.data.environments.base import Control, EnvironmentSpec, Step
from world.card import Button
from world.codecs.state_channels import StateVariable

SIZE = 32
PADDLE_HEIGHT, PADDLE_SPEED = 8, 2
SPEC = EnvironmentSpec(
    name="bouncer",
    title="Bouncer",
    description="A ball in a box; the paddle on the right is yours.",
    fps=30.0,
    height=SIZE,
    width=SIZE,
    buttons=(
        Button(name="up", label="Up", keys=("ArrowUp", "KeyW")),
        Button(name="down", label="Down", keys=("ArrowDown", "KeyS")),
    ),
    data_license="Made by this program; no rights reserved (CC0-1.0).",
    oracle_names=("ball_x", "ball_y", "paddle_y"),
    state_variables=(StateVariable(name="paddle_y", periods=(2.0 * SIZE, 8.0), step=2.0),),
    continuing=True,
    pixelated=True,
)


class Bouncer:
    """A 3×3 ball that bounces off every wall and off the paddle (reward 1); a miss gives reward −1 and a new serve.

    height, width: ignored, since the frame size is fixed.
    """

    spec = SPEC

    def __init__(self, *, height: int = SIZE, width: int = SIZE) -> None:
        self._rng = np.random.default_rng(0)
        self._ball = np.zeros(2)
        self._velocity = np.zeros(2)
        self._paddle = SIZE // 2

    def reset(self, seed: int) -> Step:
        self._rng = np.random.default_rng(seed)
        self._paddle = SIZE // 2
        self._serve()
        return self._observe(0.0)

    def step(self, control: Control) -> Step:
        move = int(control.buttons[1]) - int(control.buttons[0])
        half = PADDLE_HEIGHT // 2
        self._paddle = int(np.clip(self._paddle + move * PADDLE_SPEED, half, SIZE - half))
        self._ball = self._ball + self._velocity
        for axis, high in ((0, SIZE - 4.0), (1, SIZE - 2.0)):
            if self._ball[axis] < 1.0 or (axis == 1 and self._ball[axis] > high):
                self._velocity[axis] *= -1
                self._ball[axis] = np.clip(self._ball[axis], 1.0, high)
        reward = 0.0
        if self._ball[0] > SIZE - 4.0:
            if abs(self._ball[1] - self._paddle) <= half + 1:
                self._velocity[0] *= -1
                self._ball[0] = SIZE - 4.0
                reward = 1.0
            else:
                self._serve()
                reward = -1.0
        return self._observe(reward)

    def skilled_control(self, rng: np.random.Generator) -> Control:
        gap = self._ball[1] - self._paddle + rng.uniform(-3, 3)
        return Control(np.array([gap < -2, gap > 2], np.bool_), np.zeros(0, np.float32))

    def _serve(self) -> None:
        self._ball = np.array([4.0, self._rng.uniform(4, SIZE - 4)])
        self._velocity = np.array([1.0, self._rng.choice([-1.0, -0.5, 0.5, 1.0])])

    def _observe(self, reward: float) -> Step:
        frame = np.full((SIZE, SIZE, 3), (24, 40, 64), np.uint8)
        frame[self._paddle - PADDLE_HEIGHT // 2 : self._paddle + PADDLE_HEIGHT // 2, SIZE - 2 :] = (92, 186, 92)
        x, y = round(self._ball[0]), round(self._ball[1])
        frame[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 236
        oracle = np.array([self._ball[0], self._ball[1], self._paddle - 0.5], np.float32)
        return Step(frame, reward, False, oracle)
