"""Gymnasium environments as strangers write them: they work, or are refused in one line that names them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

import lightcone
from distill.cli.collect import run
from distill.data.collect import CollectConfig, record
from distill.data.environments import make_environment, random_control
from distill.data.environments.action_spaces import UnsupportedEnvironmentError
from distill.data.environments.gymnasium_env import GymnasiumEnvironment
from world.errors import LightconeError, PictureError


class Plain(gymnasium.Env[Any, Any]):
    """Three actions, episodes of 40 steps, and a picture with a growing bright part."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  # as Gymnasium has it
    action_space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(3)
    observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(-1.0, 1.0)
    length = 40

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(1, np.float32), 0.0, self.count >= self.length, False, {}

    def picture(self) -> NDArray[np.uint8]:
        picture = np.zeros((32, 48, 3), np.uint8)
        picture[:, self.count % 48 :] = 200
        return picture

    def render(self) -> Any:
        return self.picture()


Register = Callable[..., str]


@pytest.fixture
def register() -> Iterator[Register]:
    """Register a `Plain` with these attributes and methods, and return its id."""
    ids = []

    def make(name: str = "Odd-v0", **attributes: Any) -> str:
        odd: Any = type("Odd", (Plain,), attributes)
        gymnasium.register(name, entry_point=odd)
        ids.append(name)
        return name

    yield make
    for name in ids:
        del gymnasium.registry[name]


def played(env_id: str, steps: int = 3) -> tuple[GymnasiumEnvironment, NDArray[np.uint8]]:
    """Return the environment after a few random steps, and its last frame."""
    environment, rng = GymnasiumEnvironment(env_id, height=32, width=48), np.random.default_rng(0)
    step = environment.reset(0)
    for _ in range(steps):
        step = environment.step(random_control(environment.spec, rng))
    return environment, step.frame


@pytest.mark.parametrize(
    "render",
    [
        lambda self: (self.picture() / 255).astype(np.float32),
        lambda self: self.picture().astype(np.float64),
        lambda self: self.picture().transpose(2, 0, 1),
        lambda self: self.picture()[..., 0],
        lambda self: np.dstack([self.picture(), np.full((32, 48), 255, np.uint8)]),
        lambda self: self.picture().astype(np.uint16) * 257,
        lambda self: self.picture().tolist(),
        lambda self: [np.zeros((32, 48, 3), np.uint8), self.picture()],
    ],
    ids=["float 1", "float 255", "channels first", "grey", "RGBA", "16 bit", "nested lists", "list of frames"],
)
def test_whatever_is_rendered_becomes_the_same_picture(register: Register, render: Callable[[Any], Any]) -> None:
    _, frame = played(register(render=render))
    assert (frame[:, :3] == 0).all()
    assert (frame[:, 3:] == 200).all()


def test_a_buffer_that_is_used_again_does_not_change_recorded_frames(register: Register) -> None:
    buffer = np.zeros((32, 48, 3), np.uint8)

    def render(self: Plain) -> Any:
        buffer[:] = self.count
        return buffer

    config = CollectConfig(environment="", frames_per_stream=10)
    frames = record(GymnasiumEnvironment(register(render=render), height=32, width=48), config, 0).frames
    assert frames[:, 0, 0, 0].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("render", "message"),
    [
        (lambda _: None, "render.. gave None instead of a picture"),
        (lambda _: [], r"render.. gave an array of shape \(0,\)"),
        (lambda _: "text", "render.. gave str"),
        (lambda self: self.picture().astype(np.float32) - 128, "render.. gave float32 from -128 to 72"),
        (lambda self: self.picture() * np.nan, "render.. gave float64 with values that are not finite"),
    ],
)
def test_what_is_no_picture_is_refused(register: Register, render: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(PictureError, match=f"Odd-v0: {message}"):
        played(register(render=render))


def _raises(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"__init__": _raises}, r"Odd-v0: gymnasium\.make\(\) raised RuntimeError: no luck$"),
        ({"__init__": lambda _: None}, r"Odd-v0: gymnasium\.make\(\) raised TypeError: .*'render_mode'"),
        ({"reset": lambda _: 0}, r"Odd-v0: reset\(\) raised TypeError: .*'seed'"),
        ({"reset": _raises}, r"Odd-v0: reset\(\) raised RuntimeError: no luck$"),
        ({"step": _raises}, r"Odd-v0: step\(\) raised RuntimeError: no luck$"),
        ({"step": lambda *_: (0, 0.0, False, {})}, r"Odd-v0: step\(\) raised ValueError: not enough values"),
        ({"step": lambda *_: (0, "much", False, False, {})}, r"Odd-v0: step\(\) raised ValueError: could not convert"),
        ({"step": lambda *_: (0, np.nan, False, False, {})}, r"Odd-v0: step\(\) gave the reward nan"),
        ({"render": _raises}, r"Odd-v0: render\(\) raised RuntimeError: no luck$"),
        ({"metadata": {"render_fps": -5}}, r"Odd-v0 states render_fps -5, which is no rate"),
        ({"metadata": {"render_fps": np.nan}}, r"Odd-v0 states render_fps nan"),
        ({"metadata": {"render_fps": "fast"}}, r"Odd-v0 states render_fps 'fast'"),
        ({"action_space": gymnasium.spaces.Text(3)}, r"Odd-v0 has the action space Text"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_whatever_goes_wrong_is_one_line_with_its_cause(
    register: Register, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedEnvironmentError, match=message) as caught:
        played(register(**attributes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("stated", "fps"), [(None, 30.0), (0, 30.0), (1000, 60.0), (15, 15.0)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_rate_that_is_missing_or_too_high_is_replaced_and_said(
    register: Register, caplog: pytest.LogCaptureFixture, stated: float | None, fps: float
) -> None:
    caplog.set_level("INFO")
    environment, _ = played(register(metadata={"render_fps": stated}))
    assert environment.spec.fps == fps
    assert (f"states render_fps {stated}" in caplog.text) == (stated != fps)
    assert "Odd-v0: frames are stretched to 48x32" in caplog.text


def test_what_the_id_asks_for_is_not_overridden(register: Register) -> None:
    received: list[dict[str, Any]] = []

    def takes(self: Plain, render_mode: str | None = None, continuous: bool = True) -> None:
        received.append({"continuous": continuous})
        self.render_mode = render_mode

    def swallows(self: Plain, render_mode: str | None = None, **options: Any) -> None:
        received.append(options)
        self.render_mode = render_mode

    GymnasiumEnvironment(register("Takes-v0", __init__=takes))
    GymnasiumEnvironment(register("Swallows-v0", __init__=swallows))
    asks: Any = type("Asks", (Plain,), {"__init__": takes})
    gymnasium.register("Asks-v0", entry_point=asks, kwargs={"continuous": True})
    GymnasiumEnvironment("Asks-v0")
    del gymnasium.registry["Asks-v0"]
    assert received == [{"continuous": False}, {}, {"continuous": True}]


def test_lunar_lander_has_the_controls_that_its_id_names() -> None:
    pytest.importorskip("Box2D", reason="LunarLander needs Box2D")
    assert len(GymnasiumEnvironment("LunarLanderContinuous-v3").spec.axes) == 2
    assert [button.name for button in GymnasiumEnvironment("LunarLander-v3").spec.buttons] == ["left", "main", "right"]


@pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", "BreakoutNoFrameskip-v4", "VizdoomBasic-v1", "CartPole"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_environments_of_plug_ins_and_ids_without_a_version_are_found(
    env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # ViZDoom's own environments write a settings file into the current folder
    environment, frame = played(env_id)
    assert len(environment.spec.buttons) >= 2
    assert frame.max() > 0


MODULE = """
import gymnasium
from tests.distill.data.test_odd_environments import Plain
gymnasium.register("{name}-v0", entry_point=type("Local", (Plain,), {{"length": {length}}}))
"""


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], str]]:
    """Write a module that registers an environment with episodes of some length into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry])
    names = []

    def make(name: str, length: int) -> str:
        (tmp_path / f"odd_{name.lower()}.py").write_text(MODULE.format(name=name, length=length))
        names.append(name)
        return f"odd_{name.lower()}:{name}-v0"

    yield make
    for name in names:
        gymnasium.registry.pop(f"{name}-v0", None)


def test_a_module_in_the_current_folder_is_found(local: Callable[[str, int], str]) -> None:
    assert make_environment(local("Here", 40)).reset(0).frame.max() == 200
    with pytest.raises(
        UnsupportedEnvironmentError, match="No module named 'nowhere'; install the package, or start in"
    ):
        make_environment("nowhere:Here-v0")


@pytest.mark.parametrize(("length", "longest"), [(1, 1), (5, 5)])
def test_episodes_too_short_to_train_on_are_refused_right_after_they_are_recorded(
    local: Callable[[str, int], str], capsys: pytest.CaptureFixture[str], length: int, longest: int
) -> None:
    words = ["collect", "--env", local(f"Short{length}", length), "--streams", "1", "--frames", "70", "--name", "t"]
    assert lightcone.main(words) == 2
    error = capsys.readouterr().err
    assert f"without the end of an episode has {longest} frames that an action led to, and training needs 18" in error
    assert "Traceback" not in error


def test_training_stops_before_the_codec_where_episodes_are_too_short(
    local: Callable[[str, int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--env", local("Shorter", 3), "--preset", "smoke", "--name", "t"]
    assert lightcone.main(words) == 2
    assert "has 3 frames that an action led to, and training needs 8" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "runs" / "t").iterdir() if path.is_dir()] == ["data"]


def test_an_environment_that_ends_its_process_is_said_in_a_line(
    local: Callable[[str, int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_id = local("Ending", 70)
    module = tmp_path / "odd_ending.py"
    module.write_text(module.read_text() + "import os\nPlain.step = lambda *_: os._exit(1)\n")
    assert lightcone.main(["collect", "--env", env_id, "--streams", "1", "--frames", "70", "--name", "t"]) == 2
    assert f"{env_id} ended the process that recorded it" in capsys.readouterr().err


def test_flags_of_videos_are_refused_for_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path))
    args = lightcone.build_parser("collect").parse_args(["collect", "--env", "bouncer", "--fps", "15"])
    with pytest.raises(LightconeError, match="--fps 15: leave it out, or give --videos"):
        run(args)
