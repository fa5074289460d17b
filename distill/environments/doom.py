"""First-person Doom through ViZDoom. Owns the choice of scenario, the controls and the reading of position and angle.

Rendered at 256×160 without weapon or status bar and resized by area averaging. Frame skip 2: 17.5 frames a second. A
turn is a given angle a frame, by button or by the axis `look` (a mouse), so that what a turn does does not depend on
how long it has been going on; walking keeps Doom's inertia.
"""

from __future__ import annotations

import weakref
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import vizdoom
from PIL import Image

from distill.environments.base import Control, EnvironmentSpec, Step
from world.card import Axis, Button
from world.errors import LightconeError

SCENARIO = "my_way_home"
TICS_PER_SECOND, FRAME_SKIP = 35.0, 2
TURN_DEGREES, MAX_LOOK_DEGREES = 7.0, 14.0
PATCH = 16
STUCK_UNITS, STUCK_FRAMES = 2.0, 3


class Doom:
    """ViZDoom's `my_way_home`: rooms and corridors without enemies; an episode starts in one of several rooms.

    height, width: of frames, multiples of 16. Raises LightconeError otherwise.
    """

    def __init__(self, *, height: int = 80, width: int = 128) -> None:
        if height % PATCH or width % PATCH:
            raise LightconeError(f"frame size {height}x{width}: both must be multiples of {PATCH}")
        self.spec = EnvironmentSpec(
            name="doom",
            title="Doom",
            description="Rooms and corridors, seen with your own eyes: walk, turn, look around.",
            fps=TICS_PER_SECOND / FRAME_SKIP,
            height=height,
            width=width,
            buttons=(
                Button(name="forward", label="Forward", keys=("ArrowUp", "KeyW")),
                Button(name="back", label="Back", keys=("ArrowDown", "KeyS")),
                Button(name="left", label="Turn left", keys=("ArrowLeft", "KeyA")),
                Button(name="right", label="Turn right", keys=("ArrowRight", "KeyD")),
            ),
            axes=(Axis(name="look", label="Look", low=-1.0, high=1.0, source="mouse_x"),),
            exclusive_buttons=False,
            data_license=(
                "Frames rendered by ViZDoom (MIT) from its own scenario and the Freedoom assets that it carries "
                "(BSD-3-Clause)."
            ),
            oracle_names=("x", "y", "angle"),
        )
        folder = TemporaryDirectory()
        self._game = _make_game(Path(folder.name))
        weakref.finalize(self, _close, self._game, folder)
        self._frame = np.zeros((height, width, 3), np.uint8)
        self._oracle = np.zeros(3, np.float32)
        self._restart = False
        self._purpose, self._remaining, self._stuck = np.zeros(4, np.bool_), 0, 0

    def reset(self, seed: int) -> Step:
        self._game.set_seed(seed)
        self._game.new_episode()
        self._restart, self._remaining, self._stuck = False, 0, 0
        return self._observe(0.0)

    def step(self, control: Control) -> Step:
        if self._restart:
            self._game.new_episode()
        forward, back, left, right = (bool(pressed) for pressed in control.buttons)
        degrees = TURN_DEGREES * (right - left) + MAX_LOOK_DEGREES * float(np.clip(control.axes[0], -1.0, 1.0))
        before = self._oracle
        reward = self._game.make_action([float(forward), float(back), degrees / FRAME_SKIP], FRAME_SKIP)
        step = self._observe(float(reward))
        moved = float(np.hypot(*(self._oracle[:2] - before[:2])))
        self._stuck = self._stuck + 1 if forward and not back and moved < STUCK_UNITS else 0
        return step

    def skilled_control(self, rng: np.random.Generator) -> Control:
        """Walk on, curving a little; where a wall stops that, turn to one side; now and then look all around."""
        forward, _, left, right = range(4)
        if self._remaining <= 0 or (self._stuck >= STUCK_FRAMES and self._purpose[forward]):
            self._purpose = np.zeros(4, np.bool_)
            side = left if rng.random() < 0.5 else right
            if self._stuck >= STUCK_FRAMES:
                self._purpose[side] = True
                self._remaining = int(rng.integers(6, 20))
            elif rng.random() < 0.15:
                self._purpose[side] = True
                self._remaining = round(360.0 / TURN_DEGREES)
            else:
                self._purpose[forward] = True
                self._purpose[side] = rng.random() < 0.35
                self._remaining = int(rng.integers(4, 12) if self._purpose[side] else rng.integers(10, 40))
            self._stuck = 0
        self._remaining -= 1
        return Control(self._purpose.copy(), np.zeros(1, np.float32))

    def _observe(self, reward: float) -> Step:
        state = self._game.get_state()
        self._restart = self._game.is_episode_finished()
        if state is not None:  # of a finished episode there is no picture: the last one stays
            picture = Image.fromarray(state.screen_buffer)
            size = (self.spec.width, self.spec.height)
            self._frame = np.asarray(picture.resize(size, Image.Resampling.BOX))
            self._oracle = np.array(state.game_variables, np.float32)
        return Step(self._frame, reward, self._restart, self._oracle)


def _make_game(folder: Path) -> vizdoom.DoomGame:
    game = vizdoom.DoomGame()
    game.set_doom_config_path(str(folder / "vizdoom.ini"))
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{SCENARIO}.cfg"))
    game.set_window_visible(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_256X160)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_render_hud(False)
    game.set_render_weapon(False)
    game.set_render_crosshair(False)
    game.set_available_buttons(
        [vizdoom.Button.MOVE_FORWARD, vizdoom.Button.MOVE_BACKWARD, vizdoom.Button.TURN_LEFT_RIGHT_DELTA]
    )
    game.set_available_game_variables(
        [vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y, vizdoom.GameVariable.ANGLE]
    )
    with chdir(folder):  # where it leaves its settings and an empty folder, instead of the user's
        game.init()
    return game


def _close(game: vizdoom.DoomGame, folder: TemporaryDirectory[str]) -> None:
    game.close()
    folder.cleanup()
