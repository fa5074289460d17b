"""Any Gymnasium environment that renders. Owns how it is made, stepped and rendered; not how it is controlled."""

from __future__ import annotations

import importlib
import inspect
import logging
import math
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration

from distill.data.environments.action_spaces import UnsupportedEnvironmentError, controls_of
from distill.data.environments.base import Control, EnvironmentSpec, Frame, Step
from world.errors import LightconeError
from world.pictures import ArrayGate, stretched

logger = logging.getLogger(__name__)

PATCH = 16
MAX_FPS, DEFAULT_FPS = 60.0, 30.0
PLUGINS = ("ale_py", "vizdoom.gymnasium_wrapper")
"""Packages that register environments when they are imported. Others are named in the id: `module:Name-v0`."""


class GymnasiumEnvironment:
    """Wraps `gymnasium.make(env_id, render_mode="rgb_array")`.

    Frames pass the gate for pictures and are stretched by area averaging to `height`×`width` (multiples of 16).
    Episodes restart automatically. Where the environment takes `continuous` and the id does not set it, its discrete
    variant is used. Raises UnsupportedEnvironmentError or PictureError, also for whatever the environment raises.
    """

    def __init__(self, env_id: str, *, height: int = 64, width: int = 64, fps: float | None = None) -> None:
        if height < 1 or width < 1 or height % PATCH or width % PATCH:
            raise UnsupportedEnvironmentError(f"frame size {height}x{width}: both must be multiples of {PATCH} above 0")
        self.env = _made(env_id)
        self._controls = controls_of(env_id, self.env.action_space)
        self._gate = ArrayGate(f"{env_id}: render()")
        exclusive = len(self._controls.groups) == 1 and len(self._controls.groups[0]) == len(self._controls.buttons)
        self.spec = EnvironmentSpec(
            name=env_id.split("/")[-1].lower(),
            title=env_id,
            description=f"Gymnasium environment {env_id}.",
            fps=fps or _fps(env_id, self.env.metadata.get("render_fps")),
            height=height,
            width=width,
            buttons=self._controls.buttons,
            axes=self._controls.axes,
            exclusive_buttons=exclusive,
            button_groups=() if exclusive else self._controls.groups,
            data_license=f"Frames rendered by Gymnasium's {env_id}; see that environment's own licence.",
        )
        _say(f"{env_id}: frames are stretched to {width}x{height}; `lightcone collect` has --width and --height")
        self._restart_seed: int | None = None
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int) -> Step:
        self._rng = np.random.default_rng(seed)
        self._restart_seed = None
        self._reset(seed)
        return Step(self._render(), 0.0, False, np.zeros(0, np.float32))

    def step(self, control: Control) -> Step:
        if self._restart_seed is not None:
            self._reset(self._restart_seed)
            self._restart_seed = None
        with _one_line(f"{self.spec.title}: step()"):
            _, reward, terminated, truncated, _ = self.env.step(self._controls.native(control))
            reward, done = float(reward), bool(terminated or truncated)
        if not math.isfinite(reward):
            raise UnsupportedEnvironmentError(
                f"{self.spec.title}: step() gave the reward {reward}, not a finite number"
            )
        if done:
            self._restart_seed = int(self._rng.integers(2**31))
        return Step(self._render(), reward, done, np.zeros(0, np.float32))

    def skilled_control(self, rng: np.random.Generator) -> Control | None:
        return None

    def _reset(self, seed: int) -> None:
        with _one_line(f"{self.spec.title}: reset()"):
            self.env.reset(seed=seed)

    def _render(self) -> Frame:
        with _one_line(f"{self.spec.title}: render()"):
            rendered = self.env.render()
            if isinstance(rendered, list | tuple) and rendered and isinstance(rendered[-1], np.ndarray):
                rendered = rendered[-1]  # the frames since the last call, of which the newest is shown
            return stretched(self._gate.image(rendered), self.spec.height, self.spec.width)


@contextmanager
def _one_line(call: str) -> Iterator[None]:
    """Turn whatever an environment raises into an error of one line."""
    try:
        yield
    except LightconeError:
        raise
    except Exception as exc:  # an environment is a stranger's program and raises anything
        cause = " ".join(str(exc).split())
        raise UnsupportedEnvironmentError(f"{call} raised {type(exc).__name__}{': ' * bool(cause)}{cause}") from exc


def _made(env_id: str) -> gymnasium.Env[Any, Any]:
    with _one_line(f"{env_id}: gymnasium.make()"):
        module, _, name = env_id.rpartition(":")
        if module:
            _import(env_id, module)
        spec = _registered(name)
        options = {"continuous": False} if _has_discrete_variant(spec) else {}
        # without Gymnasium's checker, which stops at what does no harm here, such as the form of observations
        return gymnasium.make(spec, render_mode="rgb_array", disable_env_checker=True, **options)


def _import(env_id: str, module: str) -> None:
    """Import the module that an id names; the current folder is searched too, as by `python -m`."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as exc:
        raise UnsupportedEnvironmentError(
            f"{env_id}: {exc}; install the package, or start in the folder that holds the module"
        ) from exc


def _registered(name: str) -> registration.EnvSpec:
    """Return the registered spec of an id, the highest version by default, importing plug-in packages if need be."""
    plugins = iter([plugin for plugin in PLUGINS if find_spec(plugin.partition(".")[0])])
    namespace, bare, version = registration.parse_env_id(name)
    while True:
        highest = registration.find_highest_version(namespace, bare) if version is None else version
        try:
            return gymnasium.spec(name if highest is None else registration.get_env_id(namespace, bare, highest))
        except gymnasium.error.Error as exc:
            if isinstance(exc, gymnasium.error.DeprecatedEnv):
                raise
            plugin = next(plugins, None)
            if plugin is None:
                raise UnsupportedEnvironmentError(
                    f"cannot make Gymnasium environment {name!r}: {' '.join(str(exc).split())} Check the id; if a "
                    "module registers it, name that too: --env MODULE:ID"
                ) from exc
            with suppress(ImportError):  # a plug-in that is broken is not what this id is about
                importlib.import_module(plugin)


def _has_discrete_variant(spec: registration.EnvSpec) -> bool:
    """Return whether the environment takes `continuous` by this name and its id leaves it open."""
    found = spec.entry_point
    creator = registration.load_env_creator(found) if isinstance(found, str) else found
    takes = () if creator is None else inspect.signature(creator).parameters
    return "continuous" in takes and "continuous" not in spec.kwargs


def _fps(env_id: str, stated: object) -> float:
    """Return the rate that an environment is played at, and log where that is not what it states."""
    if not isinstance(stated, int | float | None) or not math.isfinite(stated or 0) or (stated or 0) < 0:
        raise UnsupportedEnvironmentError(f"{env_id} states render_fps {stated!r}, which is no rate")
    fps = min(float(stated or DEFAULT_FPS), MAX_FPS)
    if fps != stated:
        _say(f"{env_id} states render_fps {stated}; its world plays at {fps:g} frames per second")
    return fps


def _say(message: str) -> None:
    """Log a message once, not in every process that records."""
    if multiprocessing.parent_process() is None:
        logger.info("%s", message)
