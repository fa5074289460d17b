"""The table of methods in `docs/training.md`, written from the methods' listings and the measured tables."""

from __future__ import annotations

from pathlib import Path

from benchmarks.distillation.causal_methods import CAUSAL_LISTINGS
from benchmarks.distillation.methods import LISTINGS
from benchmarks.distillation.report import Table
from benchmarks.distillation.settings import Listing

STEPS = 2
HEADER = f"| method | paper | losses in `distill/methods/` | task | when | measured at {STEPS} steps |"
RULE = "|---|---|---|---|---|---|"
ALL_LISTINGS = (*LISTINGS, *CAUSAL_LISTINGS)


def write_measured(path: Path, tables: list[Table]) -> None:
    """Rewrite the table of methods in the file `path`."""
    path.write_text(with_measured(path.read_text(), tables))


def with_measured(text: str, tables: list[Table]) -> str:
    """Return the text with its table of methods written anew. Raises ValueError if there is none."""
    lines = text.split("\n")
    if HEADER not in lines:
        raise ValueError(f"the document has no table of methods: it needs the line {HEADER!r}")
    first = last = lines.index(HEADER)
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    by_part = {table.part: table for table in tables}
    written = [_line(listing, by_part.get(listing.part)) for listing in ALL_LISTINGS]
    return "\n".join([*lines[:first], HEADER, RULE, *written, *lines[last:]])


def _line(listing: Listing, table: Table | None) -> str:
    """Return a method's line; its last cell is a dash if its part was not measured."""
    losses = ", ".join(f"`{name}`" for name in listing.losses)
    measured = "–" if table is None else "; ".join(_measured(table, row) for row in listing.rows)
    cells = (listing.title, listing.paper, losses, f"`{listing.task}`", listing.when, measured)
    return f"| {' | '.join(cells)} |"


def _measured(table: Table, method: str) -> str:
    """Return the result of a method at `STEPS` steps in the table's first figure."""
    row = next(row for row in table.rows if row.method == method and row.num_steps == STEPS)
    value, best = row.quality[table.figure], table.best_teacher.quality[table.figure]
    faster = table.longest_teacher.sample_s / row.sample_s
    when = ", before its last change" if method in table.outdated else ""
    return f"{table.part}: {table.figure} {value:.3g} (teacher {best:.3g}), {faster:.0f}× faster{when}"
