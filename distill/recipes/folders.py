"""Where training keeps its state: outside the checkout, and apart from caches that may be deleted at any time. Knows
nothing of what is trained.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from tempfile import TemporaryFile

from world.errors import LightconeError

logger = logging.getLogger(__name__)


def runs_root() -> Path:
    """Return the folder of all runs: `$LIGHTCONE_RUNS`, or `lightcone/runs` in the user's data folder."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(os.environ.get("LIGHTCONE_RUNS") or data / "lightcone" / "runs")


def world_run(world: str) -> Path:
    """Return the folder of one world's data, stages and metrics. A run that an earlier release left among the caches
    is moved there first."""
    folder = runs_root() / world
    former = _former_root() / world
    if "LIGHTCONE_RUNS" not in os.environ and not folder.exists() and _is_run(former):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(former, folder)
        logger.warning("the training run of %s was moved from %s to %s, where no cache is", world, former, folder)
    return folder


def require_writable(folder: Path) -> None:
    """Raise LightconeError unless files can be written to a folder, which need not exist yet."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with TemporaryFile(dir=there):
            return
    except OSError as error:
        raise LightconeError(
            f"{folder} cannot be written to ({error.strerror}): make it writable, or choose another (runs: "
            "LIGHTCONE_RUNS; checkpoints: --out)"
        ) from error


def _former_root() -> Path:
    """Return where runs were until caches and runs were separated."""
    return Path.home() / ".cache" / "lightcone"


def _is_run(folder: Path) -> bool:
    """Return whether a folder has recorded data or a stage's state; the caches beside it have neither."""
    return (folder / "data").is_dir() or any(folder.glob("*/state.pt")) or any(folder.glob("*/*/state.pt"))
