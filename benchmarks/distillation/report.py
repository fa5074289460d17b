"""Tables of the distillation benchmark, stored as JSON and written as Markdown with a plot. Measures nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.distillation.comparison import Row


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one data set, measured on one machine.

    floor: the quality of exact samples (for digits, of the training images; for Pong, of true play through the codec).
    outdated: the methods whose loss or settings have changed since they were measured; a new measurement has none.
    """

    part: str
    machine: str
    floor: dict[str, float]
    rows: list[Row]
    outdated: tuple[str, ...] = ()

    @property
    def figure(self) -> str:
        """The figure that methods are ranked by: the first one; lower is better."""
        return next(iter(self.floor))

    @property
    def best_teacher(self) -> Row:
        """The teacher's row with the best figure."""
        return min((row for row in self.rows if row.method == "teacher"), key=lambda row: row.quality[self.figure])

    @property
    def longest_teacher(self) -> Row:
        """The teacher's row with the most steps."""
        return max((row for row in self.rows if row.method == "teacher"), key=lambda row: row.num_steps)

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Table:
        """Read a table that `save` wrote."""
        data = json.loads(path.read_text())
        rows = [Row(**row) for row in data["rows"]]
        return Table(data["part"], data["machine"], data["floor"], rows, tuple(data.get("outdated", ())))


def write_report(path: Path, tables: list[Table]) -> None:
    """Write the report `path` (Markdown) and the plot `distillation.svg` beside it."""
    plot = path.with_name("distillation.svg")
    draw_plot(plot, tables)
    parts = [
        "# Distillation, measured",
        "",
        "Written by `lightcone bench distill`, which measures all parts; `--parts digits` measures one. Within a table "
        "all students start from the same networks. Networks, optimisers and settings are in "
        "`benchmarks/distillation/`, the figures also in `benchmarks/results/`. *Calls* are network evaluations per "
        "sample or frame. *Faster* compares the time for the same number of samples, in the same run, with the teacher "
        "at its largest number of steps.",
        "",
        f"![Quality by the number of steps]({plot.name})",
    ]
    for table in tables:
        parts += ["", f"## {table.part}", "", *_markdown(table)]
    path.write_text("\n".join(parts) + "\n")


def _markdown(table: Table) -> list[str]:
    names = list(table.floor)
    floor = ", ".join(f"{name} {table.floor[name]:.4f}" for name in names)
    outdated = f" Measured before their loss or settings last changed: {', '.join(table.outdated)}."
    lines = [
        f"{table.machine}. Floor: {floor}.{outdated if table.outdated else ''}",
        "",
        f"| method | calls | {' | '.join(names)} | ratio to the teacher's best | faster | training |",
        f"|---|---|{'---|' * len(names)}---|---|---|",
    ]
    best, slowest = table.best_teacher.quality[table.figure], table.longest_teacher.sample_s
    for row in table.rows:
        figures = " | ".join(f"{row.quality[name]:.4f}" for name in names)
        lines.append(
            f"| {row.method} | {row.num_steps} | {figures} | {row.quality[table.figure] / best:.2f}× "
            f"| {slowest / row.sample_s:.1f}× | {row.train_steps} steps{_seconds(row.train_s)} |"
        )
    return lines


def _seconds(train_s: float | None) -> str:
    return "" if train_s is None else f", {train_s:.0f} s"


def draw_plot(path: Path, tables: list[Table]) -> None:
    """Draw the first figure of every table over the number of network evaluations."""
    import matplotlib as mpl  # only the report needs matplotlib

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "distillation"  # equal data gives an identical file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(tables), figsize=(5 * len(tables), 4.2), squeeze=False)
    for axis, table in zip(axes[0], tables, strict=True):
        for method in dict.fromkeys(row.method for row in table.rows):
            rows = [row for row in table.rows if row.method == method]
            style = {"color": "black", "linewidth": 2} if method == "teacher" else {"linewidth": 1}
            calls = [row.num_steps for row in rows]
            axis.plot(calls, [row.quality[table.figure] for row in rows], marker="o", ms=3, label=method, **style)
        axis.axhline(table.floor[table.figure], color="grey", linestyle=":", label="floor")
        axis.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel=table.figure, title=table.part)
        axis.legend(fontsize=6, ncols=2)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
