"""Where training keeps its state, outside the checkout. Knows nothing of what is trained."""

from __future__ import annotations

import os
from pathlib import Path


def runs_root() -> Path:
    """Return the folder of all runs: `$LIGHTCONE_RUNS`, or `~/.cache/lightcone`."""
    return Path(os.environ.get("LIGHTCONE_RUNS") or Path.home() / ".cache" / "lightcone")


def world_run(world: str) -> Path:
    """Return the folder of one world's data, stages and metrics."""
    return runs_root() / world
