"""The fastest settings are measured once, stored, and measured again if they are no longer valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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
    assert (world.num_threads, str(world.dtype)) == (answer.num_threads, f"torch.{answer.dtype}")
    assert answer.step_ms > 0
    assert not answer.compiled
    assert world.compiled is None

    monkeypatch.setattr(tuning, "_measured", None)
    assert tuning.tuned(checkpoint).num_threads == world.num_threads


def test_a_broken_result_is_measured_again(checkpoint: Path) -> None:
    tuning.tuned(checkpoint)
    (stored,) = _results(checkpoint)
    for text in ("{", "{}", '{"dtype": 1}'):
        stored.write_text(text)
        tuning.tuned(checkpoint)
        tuning.Tuning(**json.loads(stored.read_text()))


def test_a_world_loads_if_the_result_cannot_be_stored(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    (checkpoint.parent / "cache").write_text("a file in place of the folder")
    assert tuning.tuned(checkpoint).num_threads
    assert "measure again" in caplog.text


def test_a_given_number_of_threads_is_used(checkpoint: Path) -> None:
    for number in (1, 2):
        assert tuning.tuned(checkpoint, num_threads=number).num_threads == number
        assert torch.get_num_threads() == number
    assert len(_results(checkpoint)) == 2


def test_the_faster_setting_is_chosen(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step_ms(_: Path, setting: tuning.Tuning) -> float:
        seconds = {"float32": 10.0, "bfloat16": 20.0}[setting.dtype]
        seconds *= 0.5 if setting.matmul_attention else 0.99
        return seconds * (0.8 if setting.num_threads == 2 else 1.0)

    monkeypatch.setattr(tuning, "_step_ms", step_ms)
    torch.set_num_threads(2)
    world = tuning.tuned(checkpoint)
    answer = json.loads(_results(checkpoint)[0].read_text())
    assert (answer["dtype"], answer["matmul_attention"], answer["num_threads"]) == ("float32", True, 2)
    assert world.dtype is torch.float32
    assert answer["step_ms"] == 4.0
