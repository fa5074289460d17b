"""The output of `lightcone bench distill`: the report and the measured column of the methods' table."""

from pathlib import Path

import pytest

from benchmarks.distill import PARTS, RESULTS
from benchmarks.distillation.comparison import Row
from benchmarks.distillation.measured import ROWS, with_measured
from benchmarks.distillation.methods import METHODS
from benchmarks.distillation.pong_students import SHIPPED, STUDENTS
from benchmarks.distillation.report import Table, write_report

DOCS = Path(__file__).parents[2] / "docs"


def row(method: str, num_steps: int, distance: float, sample_s: float, train_s: float | None = 1.0) -> Row:
    quality = {"frechet": distance}
    return Row(method=method, num_steps=num_steps, quality=quality, sample_s=sample_s, train_s=train_s, train_steps=100)


def table() -> Table:
    names = ROWS["knowledge distillation"][1] + ROWS["sCT, sCD"][1]
    students = [row(name, steps, 0.5, 0.1 * steps) for name in names for steps in (1, 2, 4)]
    teacher = [row("teacher", 8, 0.4, 0.8, None), row("teacher", 50, 0.25, 5.0)]
    return Table("digits", "a machine", {"frechet": 0.1}, teacher + students)


def test_the_report_compares_with_the_teachers_best_and_slowest_rows(tmp_path: Path) -> None:
    write_report(tmp_path / "benchmarks.md", [table()])
    report = (tmp_path / "benchmarks.md").read_text()
    assert "| knowledge_distillation | 2 | 0.5000 | 2.00× | 25.0× | 100 steps, 1 s |" in report
    assert "| teacher | 8 | 0.4000 | 1.60× | 6.2× | 100 steps |" in report
    assert (tmp_path / "distillation.svg").read_text().startswith("<?xml")


def test_the_committed_report_is_what_the_generator_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.distillation.report.draw_plot", lambda *_: None)
    write_report(tmp_path / "benchmarks.md", [Table.load(RESULTS / f"distill-{part}.json") for part in PARTS])
    assert (tmp_path / "benchmarks.md").read_text() == (DOCS / "benchmarks.md").read_text()


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table().save(tmp_path / "t.json")
    assert Table.load(tmp_path / "t.json") == table()


def test_filling_the_methods_table_is_idempotent() -> None:
    before = "\n".join(
        [
            "| method | paper | measured at 2 steps |",
            "|---|---|---|",
            "| knowledge distillation | x | – |",
            "| sCT, sCD | x | – |",
            "| CausVid | x | – |",
        ]
    )
    after = with_measured(before, [table()])
    cell = "digits: frechet 0.5 (teacher 0.25), 25× faster"
    assert f"| knowledge distillation | x | {cell} |" in after
    assert f"| sCT, sCD | x | {cell}; {cell} |" in after
    assert "| CausVid | x | – |" in after, "Pong was not measured"
    assert with_measured(after, [table()]) == after


def test_every_method_has_a_line_in_the_training_document() -> None:
    lines = (DOCS / "training.md").read_text().split("\n")
    named = {name for _, names in ROWS.values() for name in names}
    assert all(any(line.startswith(f"| {name} | ") for line in lines) for name in ROWS)
    assert {method.name for method in METHODS} <= named
    assert {SHIPPED, *(student.name for student in STUDENTS)} <= named
