"""The measured column of `docs/training.md`. Owns which row of which table is shown for each method."""

from __future__ import annotations

from pathlib import Path

from benchmarks.distillation.report import Table

STEPS = 2
ROWS = {
    "knowledge distillation": ("digits", ("knowledge_distillation",)),
    "consistency training": ("digits", ("consistency_training",)),
    "consistency distillation": ("digits", ("consistency_distillation",)),
    "TCM": ("digits", ("tcm",)),
    "sCT, sCD": ("digits", ("sct", "scd")),
    "MeanFlow": ("digits", ("mean_flow", "mean_flow_teacher")),
    "DMD2": ("digits", ("dmd2", "dmd2_gan")),
    "f-distill": ("digits", ("f_distill",)),
    "LADD": ("digits", ("ladd",)),
    "teacher forcing": ("pong", ("teacher_forcing", "teacher_forcing_corrupted")),
    "diffusion forcing": ("pong", ("diffusion_forcing",)),
    "causal ODE regression": ("process", ("causal_ode",)),
    "causal consistency": ("pong", ("causal_consistency",)),
    "CausVid": ("pong", ("causvid",)),
    "Self-Forcing, long tuning": ("pong", ("self_forcing", "self_forcing_long")),
}
"""First cell of a line → (part, methods of its table)."""


def write_measured(path: Path, tables: list[Table]) -> None:
    """Update the measured column in the file `path`."""
    path.write_text(with_measured(path.read_text(), tables))


def with_measured(text: str, tables: list[Table]) -> str:
    """Return the text with the last cell of each method's line replaced; a dash if the part has no table."""
    by_part = {table.part: table for table in tables}
    lines = text.split("\n")
    for number, line in enumerate(lines):
        cells = line.split(" | ")
        name = cells[0].removeprefix("| ")
        if line.startswith("| ") and name in ROWS:
            part, methods = ROWS[name]
            found = [_measured(by_part[part], method) for method in methods] if part in by_part else ["–"]
            lines[number] = " | ".join([*cells[:-1], f"{'; '.join(found)} |"])
    return "\n".join(lines)


def _measured(table: Table, method: str) -> str:
    """Return the result of a method at `STEPS` steps in the table's first figure."""
    row = next(row for row in table.rows if row.method == method and row.num_steps == STEPS)
    value, best = row.quality[table.figure], table.best_teacher.quality[table.figure]
    faster = table.longest_teacher.sample_s / row.sample_s
    return f"{table.part}: {table.figure} {value:.3g} (teacher {best:.3g}), {faster:.0f}× faster"
