"""What suits the machine is measured once, kept, and asked for again where it no longer holds."""

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


def _answers(checkpoint: Path) -> list[Path]:
    return sorted((checkpoint.parent / "cache" / "tuning").iterdir())


def test_it_is_measured_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = tuning.tuned(checkpoint)
    (kept,) = _answers(checkpoint)
    answer = tuning.Tuning(**json.loads(kept.read_text()))
    assert (world.num_threads, str(world.dtype)) == (answer.num_threads, f"torch.{answer.dtype}")
    assert answer.step_ms > 0
    assert not answer.compiled
    assert world.compiled is None

    monkeypatch.setattr(tuning, "_measured", None)
    assert tuning.tuned(checkpoint).num_threads == world.num_threads


def test_a_broken_answer_is_asked_for_anew(checkpoint: Path) -> None:
    tuning.tuned(checkpoint)
    (kept,) = _answers(checkpoint)
    for text in ("{", "{}", '{"dtype": 1}'):
        kept.write_text(text)
        tuning.tuned(checkpoint)
        tuning.Tuning(**json.loads(kept.read_text()))


def test_a_world_is_served_where_answers_cannot_be_kept(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    (checkpoint.parent / "cache").write_text("a file in its place")
    assert tuning.tuned(checkpoint).num_threads
    assert "measure again" in caplog.text


def test_a_number_of_threads_that_is_given_is_kept_to(checkpoint: Path) -> None:
    for number in (1, 2):
        assert tuning.tuned(checkpoint, num_threads=number).num_threads == number
        assert torch.get_num_threads() == number
    assert len(_answers(checkpoint)) == 2


def test_the_faster_of_two_answers_is_taken(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step_ms(_: Path, asked: tuning.Tuning) -> float:
        seconds = {"float32": 10.0, "bfloat16": 20.0}[asked.dtype]
        seconds *= 0.5 if asked.matmul_attention else 0.99
        return seconds * (0.8 if asked.num_threads == 2 else 1.0)

    monkeypatch.setattr(tuning, "_step_ms", step_ms)
    torch.set_num_threads(2)
    world = tuning.tuned(checkpoint)
    answer = json.loads(_answers(checkpoint)[0].read_text())
    assert (answer["dtype"], answer["matmul_attention"], answer["num_threads"]) == ("float32", True, 2)
    assert world.dtype is torch.float32
    assert answer["step_ms"] == 4.0
