"""A name stands for one source, one recipe and one checkpoint folder; damaged or missing files are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import lightcone
from distill.data.collect import collect
from distill.recipes.choice import choose
from distill.recipes.fingerprint import Record, write_record
from distill.recipes.folders import world_run
from distill.recipes.identity import IdentityError, begin_run, check_source, check_target, new_name, recipe_name
from distill.recipes.run import Run
from distill.recipes.stages import with_steps
from distill.training.state import TrainingStateError
from world.catalogue import read_card
from world.errors import LightconeError
from world.testing import tiny_world


def train(*words: str) -> int:
    return lightcone.main(["train", *words])


@pytest.mark.parametrize("source", ["pong", "Doom", "some/folder/Pong"])
def test_a_shipped_worlds_name_is_refused_for_other_sources(source: str) -> None:
    with pytest.raises(IdentityError, match=r"comes with Lightcone .*give this one another --name"):
        new_name(None, source)
    with pytest.raises(IdentityError, match="comes with Lightcone"):
        new_name(source.split("/")[-1], "bouncer")
    assert new_name("mine", source) == "mine"


def test_a_folder_named_as_a_shipped_world_does_not_replace_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Doom").mkdir()
    tiny_world().save(tmp_path / "checkpoints" / "doom")
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints" / "doom").iterdir()}
    assert train("--videos", "Doom") == lightcone.EXIT_USAGE
    assert "'doom' is a world that comes with Lightcone" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints" / "doom").iterdir()} == before


@pytest.mark.parametrize("name", ["../up", "/there", "a/b", "..", ".hidden", "", "-x", "a\nb"])
def test_a_name_does_not_leave_the_folder_of_runs(name: str) -> None:
    with pytest.raises(IdentityError, match="cannot be the name of a world"):
        choose(None, "bouncer", None, name)
    with pytest.raises(LightconeError):
        choose(name, None, None)


def test_names_made_from_sources_are_plain() -> None:
    assert new_name(None, "ALE/Breakout-v5") == "breakout-v5"
    assert new_name(None, "oddenvs:OddShort-v0") == "oddenvs:oddshort-v0"
    assert new_name(None, "Große Fahrt (2)") == "große-fahrt-2"


def test_a_run_that_was_begun_with_another_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for recipe in ("quick", "smoke"):  # as long as there is no stage, one may choose
        begin_run(world_run("t"), "t", recipe)
    write_record(world_run("t") / "codec", Record(settings={}, inputs={}))
    assert train("--env", "bouncer", "--name", "t", "--preset", "quick") == lightcone.EXIT_USAGE
    said = capsys.readouterr().err
    assert "t was begun with the recipe smoke, not quick: give --preset smoke to go on, another --name" in said
    assert recipe_name("t", None) == "smoke", "without --preset the run goes on with its own"
    assert (recipe_name("other", None), recipe_name("pong", None)) == ("quick", "pong")
    (world_run("t") / "run.json").write_text("{")
    with pytest.raises(IdentityError, match=r"run\.json is damaged"):
        recipe_name("t", None)


def test_a_run_of_another_source_is_refused(run: Run, tmp_path: Path) -> None:
    collect(run.folder / "data", replace(run.preset.collect, num_train=1, num_heldout=1), quiet=True)
    check_source(run.folder, "bouncer", environment="bouncer", videos=None)
    with pytest.raises(IdentityError, match="was begun with the environment bouncer, not the environment CartPole-v1"):
        check_source(run.folder, "bouncer", environment="CartPole-v1", videos=None)
    with pytest.raises(IdentityError, match="was begun with the environment bouncer, not videos"):
        choose(None, None, None, "bouncer", videos=tmp_path)


def test_a_checkpoint_folder_of_another_world_or_of_other_things_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    check_target(target, "tiny", "bouncer", videos=False)
    world = tiny_world()
    world.card = replace(world.card, name="tiny", provenance={"environment": "bouncer", "command": "lightcone train …"})
    world.save(target)
    check_target(target, "tiny", "bouncer", videos=False)
    for name, environment, videos in (("other", "bouncer", False), ("tiny", "pong", False), ("tiny", "x", True)):
        with pytest.raises(IdentityError, match=r"holds another world, 'tiny' \(made by lightcone train …\)"):
            check_target(target, name, environment, videos=videos)
    (target / "world.json").unlink()
    check_target(target, "tiny", "bouncer", videos=False)  # an export that was interrupted
    (target / "thesis.tex").touch()
    with pytest.raises(IdentityError, match=r"holds thesis\.tex and no world"):
        check_target(target, "tiny", "bouncer", videos=False)
    with pytest.raises(IdentityError, match="is a file"):
        check_target(target / "thesis.tex", "tiny", "bouncer", videos=False)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_text("text")])
@pytest.mark.parametrize("file", ["codec/state.pt", "codec/codec.pt", "latents/train.pt"])
def test_a_damaged_file_is_named_with_the_remedy(run: Run, file: str, damage: Callable[[Path], None]) -> None:
    for stage in ("collect", "codec", "latents"):
        assert run.stage(stage)
    damage(run.folder / file)
    later = {"codec/state.pt": "codec", "codec/codec.pt": "decoder", "latents/train.pt": "state_estimator"}[file]
    folder = (run.folder / file).parent
    with pytest.raises(TrainingStateError, match=f"{file} is damaged .*: put back a copy, or delete {folder}"):
        run.stage(later)


def test_a_state_of_another_network_is_named(run: Run) -> None:
    for stage in ("collect", "codec", "latents"):
        assert run.stage(stage)
    (run.folder / "decoder").mkdir()
    run.preset = replace(run.preset, codec_widths=(8, 8, 16))
    (run.folder / "codec" / "codec.pt").unlink()
    (run.folder / "codec" / "stage.json").unlink()
    with pytest.raises(TrainingStateError, match="is of another network or recipe than this one"):
        run.stage("codec")


def test_training_for_no_steps_is_refused(run: Run) -> None:
    for steps in (0, -5):
        with pytest.raises(LightconeError, match=f"--steps {steps}: must be at least 1"):
            with_steps(run.preset, "codec", steps)


def test_finished_is_said_when_there_is_something_to_play(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--env", "bouncer", "--preset", "smoke", "--out", str(tmp_path / "out"))
    assert train(*words, "--stage", "collect") == 0
    said = capsys.readouterr().out
    assert "the stage collect is finished; the same command without --stage makes the rest" in said
    assert "serve" not in said
    assert train(*words, "--threads", "0") == lightcone.EXIT_USAGE
    capsys.readouterr()
    assert train(*words, "--threads", "1", "--shipped-stage", "teacher_forced") == 0
    said = capsys.readouterr().out
    assert read_card(tmp_path / "out").provenance["stage"] == "teacher_forced"
    assert f"finished; `lightcone serve --world {tmp_path / 'out'}` plays it" in said
    assert json.loads((world_run("bouncer") / "run.json").read_text()) == {"recipe": "smoke"}
