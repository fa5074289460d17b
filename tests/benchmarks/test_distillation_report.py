"""The output of `lightcone bench distill`: the report and the measured column of the methods' table."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.distill import PARTS, RESULTS
from benchmarks.distillation.comparison import Row
from benchmarks.distillation.measured import ALL_LISTINGS, HEADER, RULE, with_measured
from benchmarks.distillation.methods import LISTINGS, METHODS
from benchmarks.distillation.pong_students import SHIPPED, STUDENTS
from benchmarks.distillation.report import Table, write_report

DOCS = Path(__file__).parents[2] / "docs"


def row(method: str, num_steps: int, distance: float, sample_s: float, train_s: float | None = 1.0) -> Row:
    quality = {"frechet": distance}
    return Row(method=method, num_steps=num_steps, quality=quality, sample_s=sample_s, train_s=train_s, train_steps=100)


def table(*names: str) -> Table:
    names = names or ("knowledge_distillation", "sct", "scd")
    students = [row(name, steps, 0.5, 0.1 * steps) for name in names for steps in (1, 2, 4)]
    teacher = [row("teacher", 8, 0.4, 0.8, None), row("teacher", 50, 0.25, 5.0)]
    return Table("digits", "a machine", {"frechet": 0.1}, teacher + students)


def test_the_report_compares_with_the_teachers_best_and_slowest_rows(tmp_path: Path) -> None:
    write_report(tmp_path / "benchmarks.md", [table()])
    report = (tmp_path / "benchmarks.md").read_text()
    assert "| knowledge_distillation | 2 | 0.5000 | 2.00× | 25.0× | 100 steps, 1 s |" in report
    assert "| teacher | 8 | 0.4000 | 1.60× | 6.2× | 100 steps |" in report
    assert (tmp_path / "distillation.svg").read_text().startswith("<?xml")


def test_rows_of_before_a_methods_last_change_are_marked(tmp_path: Path) -> None:
    marked = replace(table(*(row for one in LISTINGS for row in one.rows)), outdated=("scd",))
    marked.save(tmp_path / "t.json")
    write_report(tmp_path / "benchmarks.md", [Table.load(tmp_path / "t.json")])
    assert "Measured before their loss or settings last changed: scd." in (tmp_path / "benchmarks.md").read_text()
    line = next(line for line in with_measured(f"{HEADER}\n{RULE}", [marked]).split("\n") if "| sCT, sCD |" in line)
    cell = "digits: frechet 0.5 (teacher 0.25), 25× faster"
    assert line.endswith(f"| {cell}; {cell}, before its last change |")


def test_the_committed_report_is_what_the_generator_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.distillation.report.draw_plot", lambda *_: None)
    write_report(tmp_path / "benchmarks.md", [Table.load(RESULTS / f"distill-{part}.json") for part in PARTS])
    assert (tmp_path / "benchmarks.md").read_text() == (DOCS / "benchmarks.md").read_text()


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table().save(tmp_path / "t.json")
    assert Table.load(tmp_path / "t.json") == table()


def test_the_table_of_methods_is_written_between_the_text_around_it() -> None:
    before = f"before\n{HEADER}\n{RULE}\n| knowledge distillation | out of date |\n\nafter"
    written = with_measured(before, [table(*(row for one in LISTINGS for row in one.rows))])
    cell = "digits: frechet 0.5 (teacher 0.25), 25× faster"
    lines = written.split("\n")
    assert (lines[0], lines[-2:]) == ("before", ["", "after"])
    assert next(line for line in lines if "knowledge distillation" in line).endswith(f"| {cell} |")
    assert next(line for line in lines if line.startswith("| sCT, sCD |")).endswith(f"| {cell}; {cell} |")
    assert next(line for line in lines if line.startswith("| CausVid |")).endswith("| – |"), "Pong was not measured"
    assert with_measured(written, [table(*(row for one in LISTINGS for row in one.rows))]) == written
    with pytest.raises(ValueError, match="no table of methods"):
        with_measured("nothing", [])


def test_the_committed_table_of_methods_is_what_the_generator_writes() -> None:
    text = (DOCS / "training.md").read_text()
    assert with_measured(text, [Table.load(RESULTS / f"distill-{part}.json") for part in PARTS]) == text


def test_every_method_is_listed_and_every_listing_names_what_exists() -> None:
    rows = {row for listing in ALL_LISTINGS for row in listing.rows}
    assert {method.name for method in METHODS} <= rows
    assert {SHIPPED, *(student.name for student in STUDENTS)} <= rows
    tasks = "".join(path.read_text() for path in (DOCS.parent / "distill" / "tasks").glob("*.py"))
    for listing in ALL_LISTINGS:
        assert all((DOCS.parent / "distill" / "methods" / name).is_file() for name in listing.losses), listing
        assert re.search(rf"^(class|def) {listing.task}\b", tasks, flags=re.MULTILINE), listing
