"""A run of the smallest recipe, in the test's folder."""

from pathlib import Path

import pytest

from distill.recipes.folders import world_run
from distill.recipes.generic import smoke
from distill.recipes.run import Run


@pytest.fixture(autouse=True)
def _in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write runs and checkpoints to the test's folder."""
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("bouncer", smoke("bouncer"), world_run("bouncer"), tmp_path / "checkpoint", quiet=True)
