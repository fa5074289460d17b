"""Environments: oracle and picture agree, controls have their effect, and streams are reproducible."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from distill.data.collect import CollectConfig, record
from distill.data.environments import (
    ENVIRONMENTS,
    Control,
    Environment,
    EnvironmentSpec,
    idle_control,
    make_environment,
    random_control,
)
from distill.data.environments.bouncer import Bouncer
from distill.data.environments.gymnasium_env import GymnasiumEnvironment, UnsupportedEnvironmentError
from distill.data.environments.pong import PAUSE_FRAMES, Pong
from world.card import Axis, Button

FRAMES = 600
UP, DOWN = np.array([True, False]), np.array([False, True])
NONE = np.zeros(0, np.float32)


def _brightness(frame: NDArray[np.uint8], background: int, ignore_columns: list[int]) -> NDArray[np.float64]:
    """Return the blue channel above the background, `h w`; the ball is white in both games."""
    weight: NDArray[np.float64] = np.clip(frame[..., 2].astype(float) - background, 0, None)
    weight[:, ignore_columns] = 0
    return weight


def _centre(weight: NDArray[np.float64]) -> tuple[float, float]:
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return float((weight * columns).sum() / weight.sum()), float((weight * rows).sum() / weight.sum())


def _rows_of(frame: NDArray[np.uint8], columns: slice, colour: tuple[int, int, int]) -> NDArray[np.intp]:
    """Return the rows in which these columns have approximately this colour."""
    distance = np.abs(frame[:, columns].astype(int) - np.array(colour)).sum(-1)
    return np.flatnonzero((distance < 40).any(1))


def _played(environment: Environment, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    episode = record(environment, CollectConfig(environment="", frames_per_stream=FRAMES), seed)
    return episode.frames, episode.oracle


def test_the_oracle_of_bouncer_agrees_with_its_picture() -> None:
    frames, oracle = _played(Bouncer())
    for frame, (ball_x, ball_y, paddle_y) in zip(frames, oracle, strict=True):
        x, y = _centre(_brightness(frame, 100, []))
        assert abs(x - ball_x) <= 1
        assert abs(y - ball_y) <= 1
        rows = _rows_of(frame, slice(-2, None), (92, 186, 92))
        assert abs(rows.mean() - paddle_y) <= 1.5, "the ball may cover an end of the paddle"
    assert len({round(float(y)) for y in oracle[:, 2]}) > 10


def test_the_oracle_of_pong_agrees_with_its_picture() -> None:
    frames, oracle = _played(Pong())
    field = slice(16, 96)
    shown, in_play, ghosts = 0, 0, 0
    for frame, (ball_x, ball_y, paddle_y, enemy_y, _, _) in zip(frames, oracle, strict=True):
        weight = _brightness(frame[field], 17, [8, 9, 10, 70, 71])
        visible = weight.sum() > 100
        if np.isnan(ball_x):
            ghosts += visible
        else:
            in_play += 1
            if visible:
                x, y = _centre(weight)
                assert abs(x - ball_x) <= 1
                assert abs(y + 16 - ball_y) <= 1
                shown += 1
        player = _rows_of(frame[field], slice(70, 72), (92, 186, 92))
        assert abs((player[0] + player[-1]) / 2 + 16 - paddle_y) <= 1
        enemy = _rows_of(frame[field], slice(8, 10), (213, 130, 74))
        if len(enemy):  # it appears with the first serve
            assert abs((enemy[0] + enemy[-1]) / 2 + 16 - enemy_y) <= 1
    assert in_play > FRAMES / 2
    assert shown >= 0.95 * in_play
    assert ghosts <= 0.02 * FRAMES


@pytest.mark.parametrize(("make", "paddle"), [(Bouncer, 2), (Pong, 2)])
def test_up_moves_the_paddle_up_and_down_moves_it_down(make: Callable[[], Environment], paddle: int) -> None:
    environment = make()
    environment.reset(0)
    heights = []
    for buttons in (UP, DOWN, UP):
        for _ in range(30):
            height = environment.step(Control(buttons, NONE)).oracle[paddle]
        heights.append(height)
    assert heights[0] < heights[1] - 5
    assert heights[2] < heights[1] - 5


@pytest.mark.parametrize("name", ["bouncer", "pong"])
def test_equal_seeds_give_equal_streams_and_other_seeds_do_not(name: str) -> None:
    config = CollectConfig(environment=name, frames_per_stream=200)
    first, again, other = (record(make_environment(name), config, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.oracle, again.oracle, equal_nan=True)
    assert np.array_equal(first.buttons, again.buttons)
    assert not np.array_equal(first.frames, other.frames)


def test_a_reset_makes_the_stream_independent_of_what_came_before() -> None:
    for name in ("bouncer", "pong"):
        environment = make_environment(name)
        config = CollectConfig(environment=name, frames_per_stream=60)
        first = record(environment, config, 5)
        assert np.array_equal(record(environment, config, 5).frames, first.frames)


@pytest.mark.parametrize("situation", ["in play", "waiting for the serve"])
def test_a_restored_snapshot_continues_the_same_game(situation: str) -> None:
    """Games from one snapshot: equal under equal actions, different under others; also in another emulator."""
    rng = np.random.default_rng(0)
    pong = Pong()
    pong.reset(3)
    for _ in range(150):
        pong.step(pong.skilled_control(rng))
    without_ball = 0
    while situation != "in play" and without_ball < 6:
        out = bool(np.isnan(pong.step(idle_control(pong.spec)).oracle[0]))
        without_ball = without_ball + 1 if out else 0
    state = pong.snapshot()
    actions = [random_control(pong.spec, rng) for _ in range(120)]
    truth = [pong.step(action) for action in actions]
    other = Pong()
    other.reset(9)
    for twin in (pong, other):
        twin.restore(state)
        for step, action in zip(truth, actions, strict=True):
            again = twin.step(action)
            assert np.array_equal(again.frame, step.frame)
            assert np.array_equal(again.oracle, step.oracle, equal_nan=True)
            assert (again.reward, again.done) == (step.reward, step.done)
    pong.restore(state)
    apart = [pong.step(Control(UP, NONE)).oracle[2] - step.oracle[2] for step in truth]
    assert min(apart) < -5


def test_the_pause_before_a_serve_is_short() -> None:
    _, oracle = _played(Pong(), seed=4)
    waits, run = [], 0
    for missing in np.isnan(oracle[:, 0]):
        run = run + 1 if missing else 0
        waits.append(run)
    assert 0 < max(waits) <= PAUSE_FRAMES + 12  # plus the frames in which the ball is still behind the paddle


def test_scores_change_when_rewards_come() -> None:
    episode = record(Pong(), CollectConfig(environment="pong", frames_per_stream=FRAMES), 0)
    margin = np.diff(episode.oracle[:, 4] - episode.oracle[:, 5])
    assert np.count_nonzero(episode.rewards) > 0
    assert np.array_equal(margin, episode.rewards[1:])


CART_POLE = "CartPole-v1"
PENDULUM = "Pendulum-v1"


@pytest.fixture(params=[CART_POLE, PENDULUM])
def gym(request: pytest.FixtureRequest) -> GymnasiumEnvironment:
    pytest.importorskip("pygame", reason="Gymnasium's classic control draws with pygame")
    return GymnasiumEnvironment(request.param, height=32, width=48)


def test_gymnasium_frames_have_the_requested_size(gym: GymnasiumEnvironment) -> None:
    first = gym.reset(1)
    rng = np.random.default_rng(0)
    frames = [gym.step(random_control(gym.spec, rng)).frame for _ in range(12)]
    assert first.frame.shape == (32, 48, 3)
    assert first.frame.dtype == np.uint8
    assert not np.array_equal(frames[0], frames[-1])


def test_discrete_actions_become_buttons_and_boxes_become_axes(gym: GymnasiumEnvironment) -> None:
    spec = gym.spec
    if spec.title == CART_POLE:
        assert [button.name for button in spec.buttons] == ["action0", "action1"]
        assert [button.keys for button in spec.buttons] == [("Digit1",), ("Digit2",)]
        assert not spec.axes
    else:
        assert not spec.buttons
        assert [(axis.low, axis.high) for axis in spec.axes] == [(-1.0, 1.0)]
    assert spec.fps > 0


def test_a_gymnasium_stream_is_reproducible_and_continues_after_the_end_of_an_episode(
    gym: GymnasiumEnvironment,
) -> None:
    config = CollectConfig(environment=gym.spec.title, frames_per_stream=260, skilled_share=0.0, random_share=1.0)
    first, again = record(gym, config, 7), record(gym, config, 7)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.dones, again.dones)
    ends = np.flatnonzero(first.dones)
    assert len(ends) >= 1
    assert len(first) == 260
    later = [end for end in ends if end + 1 < len(first)]
    for end in later:
        jump = np.abs(first.frames[end + 1].astype(int) - first.frames[end]).mean()
        usual = np.median(np.abs(np.diff(first.frames.astype(int), axis=0)).mean((1, 2, 3)))
        assert jump > usual, "the first frame of a new game differs from the last of the old one"


def test_a_button_acts_on_the_environment() -> None:
    pytest.importorskip("pygame", reason="Gymnasium's classic control draws with pygame")
    environment = GymnasiumEnvironment(CART_POLE, height=32, width=48)
    frames = []
    for pressed in (False, True):
        environment.reset(0)
        for _ in range(6):
            step = environment.step(Control(np.array([not pressed, pressed]), NONE))
        frames.append(step.frame)
    assert not np.array_equal(frames[0], frames[1])


class Recording(gymnasium.Env[Any, Any]):
    """An environment that renders black frames and records the actions it receives."""

    def __init__(self, space: gymnasium.Space[Any], render_mode: str = "rgb_array") -> None:
        self.action_space, self.observation_space = space, gymnasium.spaces.Discrete(1)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
        self.render_mode = render_mode
        self.received: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        return 0, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.received.append(action)
        return 0, 0.0, False, False, {}

    def render(self) -> Any:
        return np.zeros((20, 20, 3), np.uint8)


@pytest.fixture
def recording() -> Iterator[Callable[..., tuple[GymnasiumEnvironment, Recording]]]:
    """A function that registers an environment with a given action space under an id and opens it."""
    registered: list[str] = []

    def make(env_id: str, space: gymnasium.Space[Any]) -> tuple[GymnasiumEnvironment, Recording]:
        gymnasium.register(
            env_id, lambda **options: Recording(space, **options), disable_env_checker=True, order_enforce=False
        )
        registered.append(env_id)
        environment = GymnasiumEnvironment(env_id, height=16, width=16)
        inner = environment.env.unwrapped
        assert isinstance(inner, Recording)
        return environment, inner

    yield make
    for env_id in registered:
        gymnasium.registry.pop(env_id)


def test_axes_map_to_the_bounds_of_the_box_and_unbounded_components_stay_unchanged(
    recording: Callable[..., Any],
) -> None:
    low, high = np.array([-2, 0, -np.inf], np.float32), np.array([2, 10, np.inf], np.float32)
    environment, inner = recording("Boxed-v0", gymnasium.spaces.Box(low, high))
    assert all((axis.low, axis.high) == (-1.0, 1.0) for axis in environment.spec.axes)
    for value in (-1.0, 0.0, 1.0):
        environment.step(Control(np.zeros(0, np.bool_), np.full(3, value, np.float32)))
    assert np.array_equal(inner.received, [[-2, 0, -1], [0, 5, 0], [2, 10, 1]])
    assert inner.received[0].dtype == np.float32


def test_every_discrete_action_has_a_button_unless_action_0_is_known_to_do_nothing(
    recording: Callable[..., Any],
) -> None:
    environment, inner = recording("Walker-v0", gymnasium.spaces.Discrete(3))
    for pressed in (None, 0, 1, 2):
        environment.step(Control(np.arange(3) == (-1 if pressed is None else pressed), NONE))
    assert inner.received == [0, 0, 1, 2]
    environment, inner = recording("MyCarRacing-v0", gymnasium.spaces.Discrete(5))
    assert [button.name for button in environment.spec.buttons] == ["right", "left", "gas", "brake"]
    for pressed in (None, 0, 3):
        environment.step(Control(np.arange(4) == (-1 if pressed is None else pressed), NONE))
    assert inner.received == [0, 1, 4]


def test_actions_beyond_the_tenth_have_no_key(recording: Callable[..., Any]) -> None:
    environment, _ = recording("Keyboard-v0", gymnasium.spaces.Discrete(18))
    keys = [key for button in environment.spec.buttons for key in button.keys]
    assert len(environment.spec.buttons) == 18
    assert sorted(keys) == [f"Digit{i}" for i in range(10)]


def test_unknown_ids_and_invalid_sizes_are_rejected() -> None:
    with pytest.raises(UnsupportedEnvironmentError, match=r"cannot make Gymnasium environment 'NoSuchGame-v0'"):
        make_environment("NoSuchGame-v0")
    with pytest.raises(UnsupportedEnvironmentError, match="30x48"):
        GymnasiumEnvironment(CART_POLE, height=30, width=48)


OUTSIDE = """
from distill.data.environments.bouncer import Bouncer

class Mirrored(Bouncer):
    def step(self, control):
        step = super().step(control)
        return type(step)(step.frame[:, ::-1], step.reward, step.done, step.oracle)
"""


def test_an_environment_is_added_by_its_module_and_an_entry_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirrored_environment.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENVIRONMENTS, "mirrored", ("mirrored_environment", "Mirrored"))
    assert "mirrored_environment" not in sys.modules, "imported only when it is used"
    config = CollectConfig(environment="mirrored", frames_per_stream=40)
    clip = record(make_environment("mirrored"), config, 1)
    plain = record(make_environment("bouncer"), config, 1)
    assert np.array_equal(clip.frames[1:], plain.frames[1:, :, ::-1])
    assert np.array_equal(clip.buttons, plain.buttons)
    assert not np.array_equal(clip.frames, plain.frames)


def test_controls_stay_within_the_spec() -> None:
    buttons = tuple(Button(name=name, label=name, keys=()) for name in ("a", "b", "c"))
    spec = EnvironmentSpec(
        name="",
        title="",
        description="",
        fps=30,
        height=16,
        width=16,
        buttons=buttons,
        axes=(Axis(name="x", label="", low=0.5, high=2.0), Axis(name="y", label="", low=-1.0, high=1.0)),
        data_license="",
    )
    assert idle_control(spec).axes.tolist() == [0.5, 0.0]
    assert not idle_control(spec).buttons.any()
    rng = np.random.default_rng(0)
    drawn = [random_control(spec, rng) for _ in range(400)]
    held = np.stack([control.buttons for control in drawn])
    axes = np.stack([control.axes for control in drawn])
    assert held.sum(1).max() == 1, "exclusive buttons"
    assert (np.abs(held.mean(0) - 0.25) < 0.1).all()
    assert (axes.min(0) >= [0.5, -1.0]).all()
    assert (axes.max(0) <= [2.0, 1.0]).all()
    assert (np.ptp(axes, 0) > [1.3, 1.8]).all()
