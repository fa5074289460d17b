"""`lightcone bench distill`: every distillation method against its teacher. Owns the report, `docs/benchmarks.md`.

A table is kept in the runs folder once it is whole, so that a run that was stopped goes on with the next; `--fresh`
starts over. Times are of one thread, teacher and students in one run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.distillation.causal_comparison import compare_causal, law_floor
from benchmarks.distillation.comparison import Row, compare
from benchmarks.distillation.densities import DENSITIES, exact_points, point_quality, point_setting
from benchmarks.distillation.densities import NUM_SAMPLES as NUM_POINTS
from benchmarks.distillation.digits import NUM_SAMPLES as NUM_DIGITS
from benchmarks.distillation.digits import digit_quality, digit_setting, split
from benchmarks.distillation.methods import METHODS
from benchmarks.distillation.report import Table, write_report
from distill.runs import runs_root

PARTS = (*DENSITIES, "digits", "process")
REPORT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which data (default: all)")
    parser.add_argument(
        "--methods", nargs="+", choices=[m.name for m in METHODS], help="default: all (of the causal ones always all)"
    )
    parser.add_argument("--fresh", action="store_true", help="forget rows of earlier runs")
    parser.add_argument("--steps", type=int, help="training steps of every method instead of its own, for a quick look")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    whole = args.methods is None and args.steps is None and tuple(args.parts) == PARTS
    folder = runs_root() / "benchmarks" if whole else None
    tables = [_table(part, args, folder) for part in args.parts]
    if args.json:
        print(json.dumps([asdict(table) for table in tables], indent=1))
    if whole:
        write_report(REPORT, tables, f"{platform.machine()}, one thread, PyTorch {torch.__version__}")
        print(f"wrote {REPORT}", file=sys.stderr)
    return 0


def _table(part: str, args: argparse.Namespace, folder: Path | None) -> Table:
    path = folder / f"distill-{part}.json" if folder else None
    if path is not None and path.exists() and not args.fresh:
        return Table.load(path)
    rows: list[Row] = []
    floor, made = _rows(part, args)
    for row in made():
        figures = "  ".join(f"{name} {value:.4f}" for name, value in row.quality.items())
        print(f"{part:15s} {row.method:26s} {row.num_steps:3d}  {figures}  {row.sample_s:.3f} s", file=sys.stderr)
        rows.append(row)
    table = Table(part, floor, rows)
    if path is not None:
        table.save(path)
    return table


def _rows(part: str, args: argparse.Namespace) -> tuple[dict[str, float], Callable[[], Iterator[Row]]]:
    """(what the best possible samples score, the comparison)."""
    methods = [m for m in METHODS if args.methods is None or m.name in args.methods]
    changes = {} if args.steps is None else {"num_steps": args.steps, "teacher_steps": args.steps}
    if part == "process":
        return law_floor(), lambda: compare_causal(args.steps)
    if part == "digits":
        quality = digit_quality()
        return quality(split()[0]), lambda: compare(digit_setting(**changes), quality, NUM_DIGITS, methods)
    density = DENSITIES[part]()
    quality = point_quality(density)
    floor = quality(exact_points(density, seed=2))
    return floor, lambda: compare(point_setting(density, **changes), quality, NUM_POINTS, methods)
