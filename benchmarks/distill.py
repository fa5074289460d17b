"""`lightcone bench distill`: every distillation method compared with its teacher. Owns the order and the output files.

Each part's table is written to `benchmarks/results`. From all tables there, the report `docs/benchmarks.md` and the
measured column of `docs/training.md` are written. Finished tables are also stored in the runs folder, so an interrupted
run continues with the next part; the training of Pong's students, which takes longest, also resumes within the part.
`--fresh` starts over. Times are for one thread (`--threads`); teacher and students are timed in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.distillation.causal_comparison import compare_causal, law_floor
from benchmarks.distillation.comparison import Row, compare
from benchmarks.distillation.densities import DENSITIES, exact_points, point_quality, point_setting
from benchmarks.distillation.densities import NUM_SAMPLES as NUM_POINTS
from benchmarks.distillation.digits import NUM_SAMPLES as NUM_DIGITS
from benchmarks.distillation.digits import digit_quality, digit_setting, split
from benchmarks.distillation.measured import write_measured
from benchmarks.distillation.methods import METHODS
from benchmarks.distillation.pong_comparison import PongComparison, PongSetting
from benchmarks.distillation.report import Table, write_report
from distill.recipes.folders import world_run

PARTS = (*DENSITIES, "digits", "process", "pong")
RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="data sets to measure (default: all)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=[m.name for m in METHODS],
        help="methods without frames (default: all)",
    )
    parser.add_argument("--fresh", action="store_true", help="discard the stored results of earlier runs")
    parser.add_argument("--steps", type=int, help="training steps for every method, for a quick look")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for training and sampling (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measure the chosen parts and write tables and documents."""
    store = args.methods is None and args.steps is None  # partial measurements leave no files
    folder = world_run("benchmarks")
    if store and args.fresh:
        _discard(folder, args.parts)
    torch.set_num_threads(args.threads)
    tables = []
    for part in args.parts:
        path = folder / f"distill-{part}.json"
        if store and path.exists():
            print(f"{part}: measured earlier ({path}; --fresh measures again)", file=sys.stderr)
            tables.append(Table.load(path))
        else:
            tables.append(_table(part, args))
            if store:
                tables[-1].save(path)
    if args.json:
        print(json.dumps([asdict(table) for table in tables], indent=1))
    if store:
        for table in tables:
            table.save(RESULTS / f"distill-{table.part}.json")
        results = [RESULTS / f"distill-{part}.json" for part in PARTS]
        known = [Table.load(path) for path in results if path.exists()]
        write_report(DOCS / "benchmarks.md", known)
        write_measured(DOCS / "training.md", known)
        print(f"wrote {RESULTS}, {DOCS / 'benchmarks.md'}, {DOCS / 'training.md'}", file=sys.stderr)
    return 0


def _discard(folder: Path, parts: Sequence[str]) -> None:
    for part in parts:
        (folder / f"distill-{part}.json").unlink(missing_ok=True)
    if "pong" in parts:
        for products in ("quality", "students"):
            shutil.rmtree(folder / "pong" / products, ignore_errors=True)


def _table(part: str, args: argparse.Namespace) -> Table:
    floor, measure = _rows(part, args)
    rows: list[Row] = []
    for row in measure():
        figures = "  ".join(f"{name} {value:.4f}" for name, value in row.quality.items())
        print(f"{part:15s} {row.method:26s} {row.num_steps:3d}  {figures}  {row.sample_s:.3f} s", file=sys.stderr)
        rows.append(row)
    machine = f"{platform.machine()}, threads: {torch.get_num_threads()}, PyTorch {torch.__version__}"
    return Table(part, machine, floor, rows)


def _rows(part: str, args: argparse.Namespace) -> tuple[dict[str, float], Callable[[], Iterator[Row]]]:
    """Return (the figures of the best possible samples, a function that runs the comparison)."""
    methods = [m for m in METHODS if args.methods is None or m.name in args.methods]
    changes = {} if args.steps is None else {"num_steps": args.steps, "teacher_steps": args.steps}
    if part == "pong":
        comparison = PongComparison(world_run("benchmarks") / "pong", PongSetting(num_steps=args.steps))
        return comparison.floor(), comparison.rows
    if part == "process":
        return law_floor(), lambda: compare_causal(args.steps)
    if part == "digits":
        quality = digit_quality()
        return quality(split()[0]), lambda: compare(digit_setting(**changes), quality, NUM_DIGITS, methods)
    density = DENSITIES[part]()
    quality = point_quality(density)
    floor = quality(exact_points(density, seed=2))
    return floor, lambda: compare(point_setting(density, **changes), quality, NUM_POINTS, methods)
