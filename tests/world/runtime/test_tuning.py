"""The fastest settings are measured once, stored, and measured again if they are no longer valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from world.rollout.step_threads import ThreadSettings
from world.runtime import tuning
from world.testing import tiny_world


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LIGHTCONE_CACHE", str(tmp_path / "cache"))
    tiny_world().save(tmp_path / "tiny")
    yield tmp_path / "tiny"
    torch.set_num_threads(1)


def _results(checkpoint: Path) -> list[Path]:
    return sorted((checkpoint.parent / "cache" / "tuning").iterdir())


def test_settings_are_measured_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = tuning.tuned(checkpoint)
    (stored,) = _results(checkpoint)
    answer = tuning.Tuning(**json.loads(stored.read_text()))
    assert (world.threads.most, str(world.dtype)) == (answer.num_threads, f"torch.{answer.dtype}")
    assert answer.step_ms > 0
    assert not answer.compiled
    assert world.compiled is None

    monkeypatch.setattr(tuning, "_measured", None)
    assert tuning.tuned(checkpoint).threads == world.threads


def test_a_broken_result_is_measured_again(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_step_ms", lambda *_: 1.0)
    tuning.tuned(checkpoint)
    (stored,) = _results(checkpoint)
    valid = json.loads(stored.read_text())
    before = {name: value for name, value in valid.items() if name != "preferred"} | {"num_threads": 7}
    damaged = (
        {"dtype": 1},
        valid | {"dtype": "int3"},
        valid | {"preferred": {"one": 1}},
        valid | {"preferred": 3},
        before,
    )
    for text in ("{", "{}", *map(json.dumps, damaged)):
        stored.write_text(text)
        tuning.tuned(checkpoint)
        assert json.loads(stored.read_text()).keys() == valid.keys()
        assert json.loads(stored.read_text())["num_threads"] == 1


def test_a_world_loads_if_the_result_cannot_be_stored(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    (checkpoint.parent / "cache").write_text("a file in place of the folder")
    assert tuning.tuned(checkpoint).threads.most
    assert "measure again" in caplog.text


def test_a_given_number_of_threads_is_used(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_step_ms", lambda *_: 1.0)
    for number in (1, 2):
        world = tuning.tuned(checkpoint, num_threads=number)
        assert world.threads == ThreadSettings(most=number, adapts=False)
        assert torch.get_num_threads() == number
    assert len(_results(checkpoint)) == 2


def test_the_faster_setting_is_chosen(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step_ms(_: Path, setting: tuning.Tuning) -> float:
        seconds = {"float32": 10.0, "bfloat16": 20.0}[setting.dtype]
        return seconds * (0.5 if setting.matmul_attention else 0.99)

    monkeypatch.setattr(tuning, "_step_ms", step_ms)
    world = tuning.tuned(checkpoint)
    answer = json.loads(_results(checkpoint)[0].read_text())
    assert (answer["dtype"], answer["matmul_attention"], answer["num_threads"]) == ("float32", True, 1)
    assert world.dtype is torch.float32
    assert answer["step_ms"] == 5.0


IDLE_MS = {(1, 1): 19.6, (1, 2): 17.1, (4, 1): 60.0, (4, 2): 33.0}
"""Milliseconds by batch size and number of threads."""


@pytest.mark.parametrize(
    ("beside_ms", "expected"),
    [
        ({(1, 1): 19.2, (1, 2): 38.0, (4, 1): 60.0, (4, 2): 70.0}, {1: 1, 4: 2}),
        ({(1, 1): 19.2, (1, 2): 38.0, (4, 1): 60.0, (4, 2): 150.0}, {1: 1, 4: 1}),
        (IDLE_MS, {1: 2, 4: 2}),  # with more cores, a busy process does not matter
        (None, {1: 2, 4: 2}),
    ],
)
def test_play_begins_with_threads_that_do_not_collapse_beside_a_busy_process(
    beside_ms: dict[tuple[int, int], float] | None,
    expected: dict[int, int],
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_busy = False

    @contextmanager
    def busy(_: int) -> Iterator[None]:
        nonlocal is_busy
        if beside_ms is None:
            raise OSError("no more processes")
        is_busy = True
        yield

    def times(*_: object) -> dict[tuple[int, int], list[float]]:
        found = beside_ms if is_busy and beside_ms is not None else IDLE_MS
        return {key: [ms, ms, 10 * ms] for key, ms in found.items()}

    monkeypatch.setattr(tuning, "_step_ms", lambda *_: 1.0)
    monkeypatch.setattr(tuning, "busy_processes", busy)
    monkeypatch.setattr(tuning, "_times", times)
    torch.set_num_threads(2)
    world = tuning.tuned(checkpoint)
    assert world.threads == ThreadSettings(most=2, preferred=expected)
    assert torch.get_num_threads() == 2, "the most that may be used"
    assert ("could not start" in caplog.text) == (beside_ms is None)
    monkeypatch.setattr(tuning, "_measured", None)
    assert tuning.tuned(checkpoint).threads == world.threads, "stored"


def test_threads_are_measured_with_whole_steps_of_each_size(checkpoint: Path) -> None:
    torch.set_num_threads(2)
    world = tuning.tuned(checkpoint)
    assert world.threads.preferred.keys() == set(tuning.THREAD_BATCHES)
    assert set(world.threads.preferred.values()) <= {1, 2}
