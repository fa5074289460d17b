"""Causal students on the shipped Pong, each trained for one step: all rows are present and are stored for reuse."""

from pathlib import Path

import pytest

from benchmarks.distillation.comparison import Row
from benchmarks.distillation.pong_comparison import PongComparison, PongSetting
from benchmarks.distillation.pong_students import SHIPPED, STUDENTS
from distill.evaluation.long_rollouts import DriftConfig

SETTING = PongSetting(
    num_train=2,
    num_heldout=2,
    frames_per_stream=160,
    num_starts=2,
    num_frames=12,
    drift=DriftConfig(num_frames=20, num_clips=1, num_real_clips=3),
    teacher_steps=(2,),
    student_steps=(1, 2),
    num_steps=1,
)


@pytest.mark.slow
def test_every_student_is_trained_measured_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = PongComparison(tmp_path, SETTING)
    rows = list(comparison.rows())
    names = ["teacher", *(name for student in (SHIPPED, *(s.name for s in STUDENTS)) for name in [student] * 2)]
    assert [row.method for row in rows] == names
    assert all(row.quality.keys() == comparison.floor().keys() for row in rows)
    trained = [row for row in rows if row.method not in ("teacher", SHIPPED)]
    assert {row.train_steps for row in trained} == {1}
    assert len({row.quality["drift_max"] for row in trained}) > len(STUDENTS), "students differ from each other"

    monkeypatch.setattr("benchmarks.distillation.pong_comparison.drift", None)
    stored = [(row.method, row.num_steps, row.train_steps, _untimed(row)) for row in rows]
    again = PongComparison(tmp_path, SETTING).rows()
    assert [(row.method, row.num_steps, row.train_steps, _untimed(row)) for row in again] == stored


def _untimed(row: Row) -> str:
    return repr({name: value for name, value in row.quality.items() if name != "frames_per_s"})
