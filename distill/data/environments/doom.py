"""First-person Doom through ViZDoom. Owns the choice of scenario, the controls and the reading of position and angle.

Frames are rendered at 256×144 without weapon and status bar and resized with a triangle filter. Frame skip 2: 17.5
frames per second. Turning, by button or by the axis `look` (a mouse), changes the angle by a fixed amount per frame,
so its effect does not depend on how long the turn has lasted; walking keeps Doom's inertia. 72 frames of turning by
button are a full circle.
"""

from __future__ import annotations

import weakref
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import vizdoom
from numpy.typing import NDArray
from PIL import Image

from distill.data.environments.base import Control, EnvironmentSpec, Step
from world.card import Axis, Button
from world.codecs.state_channels import StateVariable
from world.errors import LightconeError

SCENARIO = "my_way_home"
TICS_PER_SECOND, FRAME_SKIP = 35.0, 2
TURN_DEGREES, MAX_LOOK_DEGREES = 5.0, 10.0
PLACE_PERIODS, ANGLE_PERIODS = (2048.0, 512.0, 128.0), (360.0, 120.0, 40.0)
"""In map units and degrees. The map measures 930 by 800 units; one step covers at most 15."""
PATCH = 16
FORWARD, BACK, LEFT, RIGHT = range(4)
NEAR, CLEAR = 4.0, 8.0
"""Distances at which `skilled_control` starts and stops turning away from a wall, in ViZDoom's depth (7 to 8 map units
each)."""


class Doom:
    """ViZDoom's `my_way_home`: rooms and corridors without enemies; an episode starts in one of several rooms.

    height, width: frame size in multiples of 16. Raises LightconeError for other sizes.
    """

    def __init__(self, *, height: int = 48, width: int = 80) -> None:
        if height < 1 or width < 1 or height % PATCH or width % PATCH:
            raise LightconeError(f"frame size {height}x{width}: both must be multiples of {PATCH} above 0")
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
            state_variables=(
                StateVariable(name="x", periods=PLACE_PERIODS, step=5.0),
                StateVariable(name="y", periods=PLACE_PERIODS, step=5.0),
                StateVariable(name="angle", periods=ANGLE_PERIODS, step=5.0),
            ),
        )
        folder = TemporaryDirectory()
        self._game = _make_game(Path(folder.name))
        weakref.finalize(self, _close, self._game, folder)
        self._frame = np.zeros((height, width, 3), np.uint8)
        self._oracle = np.zeros(3, np.float32)
        self._restart = False
        self._purpose, self._remaining, self._turning_away = _pressing(), 0, 0
        self._room = (0.0, 0.0, 0.0)

    def reset(self, seed: int) -> Step:
        self._game.set_seed(seed)
        self._game.new_episode()
        self._restart, self._remaining, self._turning_away = False, 0, 0
        return self._observe(0.0)

    def step(self, control: Control) -> Step:
        if self._restart:
            self._game.new_episode()
        forward, back, left, right = (bool(pressed) for pressed in control.buttons)
        degrees = TURN_DEGREES * (right - left) + MAX_LOOK_DEGREES * float(np.clip(control.axes[0], -1.0, 1.0))
        reward = self._game.make_action([float(forward), float(back), degrees / FRAME_SKIP], FRAME_SKIP)
        return self._observe(float(reward))

    def skilled_control(self, rng: np.random.Generator) -> Control:
        """Explore: walk straight or in curves, by button or mouse; turn away from walls; sometimes turn full circle."""
        if self._remaining <= 0:
            self._purpose, self._remaining = _new_purpose(rng)
        self._remaining -= 1
        left, ahead, right = self._room
        walks = bool(self._purpose.buttons[FORWARD])
        if walks and (self._turning_away or ahead < NEAR):
            if not self._turning_away:
                self._turning_away = LEFT if left > right else RIGHT
            if ahead < CLEAR:
                return _pressing(self._turning_away)
        self._turning_away = 0
        return self._purpose

    def _observe(self, reward: float) -> Step:
        state = self._game.get_state()
        self._restart = self._game.is_episode_finished()
        if state is not None:  # a finished episode has no picture, so the last one is repeated
            picture = Image.fromarray(state.screen_buffer)
            size = (self.spec.width, self.spec.height)
            self._frame = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
            self._oracle = np.array(state.game_variables, np.float32)
            self._room = _room(np.asarray(state.depth_buffer))
        return Step(self._frame, reward, self._restart, self._oracle)


def _pressing(*buttons: int, look: float = 0.0) -> Control:
    pressed = np.zeros(4, np.bool_)
    pressed[list(buttons)] = True
    return Control(pressed, np.array([look], np.float32))


def _new_purpose(rng: np.random.Generator) -> tuple[Control, int]:
    """Draw the explorer's next control and for how many frames it is held."""
    side = LEFT if rng.random() < 0.5 else RIGHT
    draw = rng.random()
    if draw < 0.08:
        return _pressing(side), round(360.0 / TURN_DEGREES)
    if draw < 0.45:
        return _pressing(FORWARD), int(rng.integers(8, 30))
    if draw < 0.65:
        return _pressing(FORWARD, side), int(rng.integers(6, 18))
    if draw < 0.80:
        return _pressing(FORWARD, look=float(rng.uniform(-0.7, 0.7))), int(rng.integers(8, 24))
    if draw < 0.88:
        return _pressing(side), int(rng.integers(4, 20))
    if draw < 0.95:
        return _pressing(look=float(rng.uniform(-1.0, 1.0))), int(rng.integers(4, 20))
    return _pressing(BACK), int(rng.integers(5, 15))


def _room(depth: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return the distance to the nearest obstacle left, ahead and right at eye level: `h w` → ViZDoom's depth."""
    height, width = depth.shape
    band = depth[height // 2 - 6 : height // 2 + 6].min(axis=0).astype(np.float32)
    side = 2 * width // 5
    ahead = float(np.median(band[side : width - side]))
    return float(band[:side].mean()), ahead, float(band[width - side :].mean())


def _make_game(folder: Path) -> vizdoom.DoomGame:
    game = vizdoom.DoomGame()
    game.set_doom_config_path(str(folder / "vizdoom.ini"))
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{SCENARIO}.cfg"))
    game.set_window_visible(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_256X144)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)  # only the explorer uses it; it appears in no frame
    game.set_render_hud(False)
    game.set_render_weapon(False)
    game.set_render_crosshair(False)
    game.set_available_buttons(
        [vizdoom.Button.MOVE_FORWARD, vizdoom.Button.MOVE_BACKWARD, vizdoom.Button.TURN_LEFT_RIGHT_DELTA]
    )
    game.set_available_game_variables(
        [vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y, vizdoom.GameVariable.ANGLE]
    )
    with chdir(folder):  # ViZDoom leaves a settings file and an empty folder in the working directory
        game.init()
    return game


def _close(game: vizdoom.DoomGame, folder: TemporaryDirectory[str]) -> None:
    game.close()
    folder.cleanup()
