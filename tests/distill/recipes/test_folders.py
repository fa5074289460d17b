"""Training runs stand apart from caches; a run from before is moved, and a cache never is."""

from pathlib import Path

import pytest

from distill.recipes.folders import runs_root, world_run
from world.device import cache_root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("LIGHTCONE_RUNS", "LIGHTCONE_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_no_run_is_below_the_cache_and_no_cache_below_the_runs(home: Path) -> None:
    assert not runs_root().is_relative_to(cache_root())
    assert not cache_root().is_relative_to(runs_root())
    assert runs_root().is_relative_to(home)


@pytest.mark.parametrize("file", ["data/train.pt", "warm_up/state.pt", "pong/teacher/state.pt"])
def test_a_run_from_before_is_moved_with_all_it_holds(home: Path, file: str) -> None:
    former = home / ".cache" / "lightcone" / "films" / file
    former.parent.mkdir(parents=True)
    former.write_text("days of training")
    folder = world_run("films")
    assert (folder / file).read_text() == "days of training"
    assert not former.exists()
    assert world_run("films") == folder  # once moved, it stays


def test_caches_and_newer_runs_stay_where_they_are(home: Path) -> None:
    cached = cache_root() / "tuning" / "a.json"
    former = home / ".cache" / "lightcone" / "films" / "data"
    newer = runs_root() / "films" / "data"
    for folder in (cached.parent, former, newer):
        folder.mkdir(parents=True)
    cached.write_text("{}")
    world_run("tuning")
    world_run("films")
    assert cached.exists()
    assert former.exists()
    assert newer.exists()


def test_a_folder_that_the_user_chose_is_used_as_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = home / ".cache" / "lightcone" / "films" / "data"
    former.mkdir(parents=True)
    monkeypatch.setenv("LIGHTCONE_RUNS", str(home / "mine"))
    assert world_run("films") == home / "mine" / "films"
    assert former.exists()
