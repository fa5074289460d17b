"""Environments: oracle and picture agree, controls have their effect, and streams are reproducible."""

import sys
from collections.abc import Callable
from pathlib import Path

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
