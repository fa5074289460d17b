"""Tables of the distillation benchmark, kept as JSON and written as Markdown with a plot. Measures nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.distillation.comparison import Row


@dataclass(frozen=True, slots=True)
class Table:
    """One set of data, measured on one machine. floor: the quality of exact samples (of training images, where there is
    no exact law; of true play through the codec)."""

    part: str
    machine: str
    floor: dict[str, float]
    rows: list[Row]

    @property
    def figure(self) -> str:
        """The first of the quality's figures: what methods are ranked by; less is better."""
        return next(iter(self.floor))

    @property
    def best_teacher(self) -> Row:
        return min((row for row in self.rows if row.method == "teacher"), key=lambda row: row.quality[self.figure])

    @property
    def longest_teacher(self) -> Row:
        return max((row for row in self.rows if row.method == "teacher"), key=lambda row: row.num_steps)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Table:
        data = json.loads(path.read_text())
        return Table(data["part"], data["machine"], data["floor"], [Row(**row) for row in data["rows"]])


def write_report(path: Path, tables: list[Table]) -> None:
    """`path` (Markdown) and the plot beside it, `distillation.svg`."""
    plot = path.with_name("distillation.svg")
    draw_plot(plot, tables)
    parts = [
        "# Distillation, measured",
        "",
        "Written by `lightcone bench distill`, which measures all of it anew; `--parts digits` measures one part. "
        "Within a table each method's student starts from the same networks; these, the optimisation and the settings "
        "are in `benchmarks/distillation/`, the figures also in `benchmarks/results/`. *Faster* compares with the "
        "teacher at the most steps of its table, making as many samples in the same run; *calls* are network "
        "evaluations a sample, or a frame.",
        "",
        f"![Quality by the number of steps]({plot.name})",
    ]
    for table in tables:
        parts += ["", f"## {table.part}", "", *_markdown(table)]
    path.write_text("\n".join(parts) + "\n")


def _markdown(table: Table) -> list[str]:
    names = list(table.floor)
    floor = ", ".join(f"{name} {table.floor[name]:.4f}" for name in names)
    lines = [
        f"{table.machine}. Floor: {floor}.",
        "",
        f"| method | calls | {' | '.join(names)} | to the teacher's best | faster | training |",
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
    import matplotlib as mpl  # here, since only the report needs it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "distillation"  # the same figures give the same file
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
