"""Doom through ViZDoom: effects of the controls, position and angle in the oracle, reproducible streams."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from distill.data.environments import Control, make_environment
from distill.data.environments.doom import MAX_LOOK_DEGREES, TURN_DEGREES, Doom
from world.errors import LightconeError

FORWARD, BACK, LEFT, RIGHT = range(4)


def press(*buttons: int, look: float = 0.0) -> Control:
    pressed = np.zeros(4, np.bool_)
    pressed[list(buttons)] = True
    return Control(pressed, np.array([look], np.float32))


@pytest.fixture(scope="module")
def doom() -> Doom:
    return Doom(height=48, width=64)


def turned(before: float, after: float) -> float:
    """Return the change of the angle in degrees; positive is to the left."""
    return (after - before + 180.0) % 360.0 - 180.0


@pytest.mark.parametrize(
    ("control", "degrees"),
    [
        (press(LEFT), TURN_DEGREES),
        (press(RIGHT), -TURN_DEGREES),
        (press(LEFT, RIGHT), 0.0),
        (press(look=0.5), -MAX_LOOK_DEGREES / 2),
        (press(look=-3.0), MAX_LOOK_DEGREES),
    ],
)
def test_a_turn_is_the_same_angle_every_frame(doom: Doom, control: Control, degrees: float) -> None:
    angles = [float(doom.reset(0).oracle[2])] + [float(doom.step(control).oracle[2]) for _ in range(5)]
    assert [turned(a, b) for a, b in pairwise(angles)] == pytest.approx([degrees] * 5, abs=0.02)


def test_forward_moves_in_the_direction_of_view_and_back_moves_opposite(doom: Doom) -> None:
    for control, sign in ((press(FORWARD), 1.0), (press(BACK), -1.0)):
        start = doom.reset(3).oracle
        for _ in range(4):
            here = doom.step(control).oracle
        ahead = np.array([np.cos(np.radians(start[2])), np.sin(np.radians(start[2]))])
        way = here[:2] - start[:2]
        assert sign * float(way @ ahead) > 5.0
        assert abs(float(way @ ahead)) == pytest.approx(float(np.linalg.norm(way)), rel=0.01)


def test_a_stream_depends_only_on_its_seed_even_across_episodes(doom: Doom) -> None:
    def play(seed: int) -> tuple[np.ndarray, list[int]]:
        rng = np.random.default_rng(seed)
        steps = [doom.reset(seed)] + [doom.step(doom.skilled_control(rng)) for _ in range(1200)]
        return np.stack([step.frame for step in steps]), [i for i, step in enumerate(steps) if step.done]

    frames, ends = play(0)
    again, ends_again = play(0)
    assert frames.shape == (1201, 48, 64, 3)
    assert np.array_equal(frames, again)
    assert ends == ends_again
    assert ends
    assert not np.array_equal(frames[ends[0] + 1], frames[ends[0]]), "the next episode has begun"
    assert not np.array_equal(play(1)[0], frames)


def test_the_explorer_visits_many_places_and_headings(doom: Doom) -> None:
    rng = np.random.default_rng(0)
    places = [doom.reset(0).oracle] + [doom.step(doom.skilled_control(rng)).oracle for _ in range(600)]
    assert len({tuple((place[:2] // 64).astype(int)) for place in places}) > 12
    assert len({int(place[2] // 30) for place in places}) == 12, "every heading"


def test_it_leaves_no_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_environment("doom", height=32, width=48).reset(0)
    assert not list(tmp_path.iterdir())


def test_an_invalid_frame_size_is_rejected() -> None:
    with pytest.raises(LightconeError, match="frame size 50x64"):
        Doom(height=50, width=64)
