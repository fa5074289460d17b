"""Gymnasium environments: sizes, controls, and streams across episodes."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from distill.data.collect import CollectConfig, record
from distill.data.environments import Control, make_environment, random_control
from distill.data.environments.action_spaces import UnsupportedEnvironmentError
from distill.data.environments.gymnasium_env import GymnasiumEnvironment

NONE = np.zeros(0, np.float32)
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
