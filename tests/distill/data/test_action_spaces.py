"""Every action space of Gymnasium as buttons and axes: each action can be reached, equally often where it is random."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from distill.data.environments.action_spaces import UnsupportedEnvironmentError, controls_of
from distill.data.environments.base import Control, EnvironmentSpec, idle_control, random_control


def spec_of(space: spaces.Space[Any]) -> EnvironmentSpec:
    controls = controls_of("Odd-v0", space)
    return EnvironmentSpec(
        name="",
        title="",
        description="",
        fps=30,
        height=16,
        width=16,
        buttons=controls.buttons,
        axes=controls.axes,
        exclusive_buttons=False,
        button_groups=controls.groups,
        data_license="",
    )


def drawn(space: spaces.Space[Any], num: int) -> list[Any]:
    """Return random actions, each of which the space contains."""
    rng, spec, native = np.random.default_rng(0), spec_of(space), controls_of("Odd-v0", space).native
    actions = [native(random_control(spec, rng)) for _ in range(num)]
    assert all(space.contains(action) for action in actions)
    return actions


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (spaces.Box(0, 3, (2,), np.int64), range(4)),
        (spaces.Box(0, 1, (2,), np.int8), range(2)),
        (spaces.Box(-2, 2, (2,), np.int16), range(-2, 3)),
        (spaces.Box(0, 255, (2,), np.uint8), range(256)),
        (spaces.MultiDiscrete([3, 3]), range(3)),
        (spaces.MultiDiscrete([4, 4], start=[-1, -1]), range(-1, 3)),
        (spaces.MultiBinary(2), range(2)),
        (spaces.MultiBinary((2, 1)), range(2)),
    ],
    ids=str,
)
def test_each_integer_comes_equally_often(space: spaces.Space[Any], values: range) -> None:
    actions = np.array(drawn(space, 6000)).reshape(6000, 2)
    for component in actions.T:
        counts = Counter(component.tolist())
        assert set(counts) == set(values)
        expected = 6000 / len(values)
        assert max(abs(count - expected) for count in counts.values()) < 5.5 * expected**0.5


def test_each_discrete_action_comes_and_action_0_while_nothing_is_pressed() -> None:
    for space in (spaces.Discrete(3), spaces.Discrete(3, start=-1), spaces.Discrete(1)):
        assert set(drawn(space, 100)) == set(range(int(space.start), int(space.start) + int(space.n)))
        assert controls_of("Odd-v0", space).native(idle_control(spec_of(space))) == space.start


@pytest.mark.parametrize(
    ("space", "idle"),
    [
        (spaces.Box(0, 1, (1,), np.int8), 0),
        (spaces.Box(-1, 1, (1,), np.int8), 0),
        (spaces.Box(-2.0, 2.0, (1,), np.float64), 0.0),
        (spaces.MultiDiscrete([3]), 0),
        (spaces.MultiBinary(1), 0),
    ],
    ids=str,
)
def test_no_control_is_no_action(space: spaces.Space[Any], idle: float) -> None:
    assert controls_of("Odd-v0", space).native(idle_control(spec_of(space))) == [idle]


INF = np.inf


@pytest.mark.parametrize(
    ("low", "high", "reached"),
    [
        (-2.0, 6.0, (-2.0, 2.0, 6.0)),
        (-INF, INF, (-1.0, 0.0, 1.0)),
        (0.0, INF, (0.0, 1.0, 2.0)),
        (-5.0, INF, (-1.0, 0.0, 1.0)),
        (-INF, 0.0, (-2.0, -1.0, 0.0)),
        (-3e38, 3e38, (-3e38, 0.0, 3e38)),
        (0.1, 0.3, (0.1, 0.2, 0.3)),
        (5.0, 5.0, (5.0, 5.0, 5.0)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_axis_reaches_the_bounds_and_never_leaves_them(
    low: float, high: float, reached: tuple[float, ...], dtype: type[np.floating[Any]]
) -> None:
    space = spaces.Box(low, high, (2, 3), dtype)
    controls = controls_of("Odd-v0", space)
    assert len(controls.axes) == 6
    for value, expected in zip((-1.0, 0.0, 1.0), reached, strict=True):
        action = controls.native(Control(np.zeros(0, np.bool_), np.full(6, value, np.float32)))
        assert space.contains(action)
        assert action == pytest.approx(np.full((2, 3), expected), rel=1e-6)


def test_dicts_and_tuples_put_controls_side_by_side() -> None:
    space = spaces.Dict(
        {
            "arm": spaces.Box(-1.0, 1.0, (2,)),
            "hand": spaces.Tuple([spaces.Discrete(2), spaces.MultiDiscrete([2, 3])]),
            "keys": spaces.MultiBinary(2),
        }
    )
    controls = controls_of("Odd-v0", space)
    assert [axis.label for axis in controls.axes] == ["Arm axis 0", "Arm axis 1"]
    names = [button.name for button in controls.buttons]
    assert names == [
        "hand_0_action0",
        "hand_0_action1",
        "hand_1_action0_1",
        "hand_1_action1_1",
        "hand_1_action1_2",
        "keys_button0",
        "keys_button1",
    ]
    assert controls.groups == ((0, 1), (2,), (3, 4))
    assert [button.keys for button in controls.buttons] == [(f"Digit{i}",) for i in range(1, 8)]
    pressed = np.array([False, True, False, False, True, True, False])
    action = controls.native(Control(pressed, np.array([0.5, -0.5], np.float32)))
    assert action["arm"].tolist() == [0.5, -0.5]
    assert action["hand"][0] == 1
    assert action["hand"][1].tolist() == [0, 2]
    assert action["keys"].tolist() == [1, 0]
    drawn(space, 50)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(4),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Dict({"say": spaces.Text(4)}),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_spaces_are_refused_by_name(space: spaces.Space[Any]) -> None:
    inner = space["say"] if isinstance(space, spaces.Dict) else space
    with pytest.raises(
        UnsupportedEnvironmentError, match=f"Odd-v0 has the action space.*{type(inner).__name__} cannot"
    ):
        controls_of("Odd-v0", space)


def test_bounds_that_are_no_numbers_and_too_many_actions_are_refused() -> None:
    box = spaces.Box(-1.0, 1.0, (2,))
    box.low = np.array([np.nan, -1.0], np.float32)
    with pytest.raises(UnsupportedEnvironmentError, match="bounds that are not numbers"):
        controls_of("Odd-v0", box)
    with pytest.raises(UnsupportedEnvironmentError, match="12288 axes, more than 1024"):
        controls_of("Odd-v0", spaces.Box(0, 255, (64, 64, 3), np.uint8))
