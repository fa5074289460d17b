"""What leaves a product up to date, and what protects one from being made of parts that do not fit together."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from distill.data.clips import DatasetError
from distill.recipes import build
from distill.recipes.fingerprint import FILE
from distill.recipes.former_runs import FORMER_NAMES, FORMER_RECORD
from distill.recipes.products import StageError
from distill.recipes.run import Run
from distill.recipes.stages import with_steps
from distill.training.state import trained_steps


@pytest.fixture
def run(run: Run) -> Run:
    """A run of the smallest recipe up to its warm-up."""
    for stage in ("collect", "codec", "latents", "state_estimator", "warm_up"):
        assert run.stage(stage)
    return run


def stamps(run: Run) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.pt")}


def test_a_continuation_that_fails_before_it_saves_leaves_later_stages_up_to_date(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.stage("teacher")
    before, recipe = stamps(run), run.preset

    def out_of_memory(*_: Any) -> bool:
        raise MemoryError

    run.preset = with_steps(recipe, "warm_up", 9)
    with monkeypatch.context() as patch:
        patch.setattr(build, "train", out_of_memory)
        with pytest.raises(MemoryError):
            run.stage("warm_up")
    run.preset = recipe
    assert run.stage("teacher")
    assert stamps(run) == before


def test_deleted_latents_are_encoded_again_and_change_nothing_else(run: Run) -> None:
    before = stamps(run)
    shutil.rmtree(run.folder / "latents")
    assert run.stage("latents")
    assert run.stage("warm_up")
    after = stamps(run)
    assert {path for path in before if after[path] != before[path]} == {run.latents}


def test_a_codec_that_ran_out_of_time_on_more_steps_stays_the_one_that_was_used(run: Run) -> None:
    codec = run.folder / "codec" / "codec.pt"
    before, recipe = codec.stat().st_mtime_ns, run.preset
    run.preset, run.stop_after_s = with_steps(recipe, "codec", 9), 0.0
    assert not run.stage("codec")
    run.preset, run.stop_after_s = recipe, None
    for stage in ("codec", "latents", "warm_up"):
        assert run.stage(stage)
    assert codec.stat().st_mtime_ns == before
    steps = trained_steps(run.folder / "codec")
    run.preset = with_steps(recipe, "codec", steps)
    assert run.stage("codec"), "writes the codec of the steps that are done"
    assert codec.stat().st_mtime_ns != before


def test_all_stages_keep_a_finished_codec_though_the_recipe_has_more_steps(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before = (run.folder / "codec" / "codec.pt").stat().st_mtime_ns
    run.preset = with_steps(run.preset, "codec", 5)
    with caplog.at_level(logging.INFO):
        assert run.all_stages()
    assert "codec: kept with its 3 steps; `--stage codec` trains it to the recipe's 5" in caplog.text
    assert (run.folder / "codec" / "codec.pt").stat().st_mtime_ns == before


def test_keeping_a_product_by_deleting_its_record_keeps_what_was_made_of_it(run: Run) -> None:
    assert run.stage("teacher")
    before = stamps(run)
    run.preset = replace(run.preset, warm_up_trainer=replace(run.preset.warm_up_trainer, lr=0.5))
    (run.folder / "warm_up" / FILE).unlink()
    assert run.stage("warm_up")
    assert run.stage("teacher")
    assert stamps(run) == before


def test_a_checkpoint_is_not_made_of_products_that_do_not_fit_together(run: Run) -> None:
    assert run.stage("teacher")
    assert run.stage("teacher_forced")
    assert run.stage("export")
    shutil.rmtree(run.checkpoint)
    run.preset = with_steps(run.preset, "codec", 5)
    assert run.stage("codec")
    with pytest.raises(StageError, match="export stops: state_estimator is out of date: its input codec was made"):
        run.stage("export")
    assert not run.checkpoint.exists()


def test_redo_deletes_nothing_that_it_cannot_make_again(run: Run) -> None:
    run.preset = replace(run.preset, decoder_trainer=None)
    with pytest.raises(StageError, match="this recipe has no stage decoder"):
        run.stage("decoder", redo=True)
    shutil.move(run.folder / "data", run.folder / "elsewhere")
    with pytest.raises(DatasetError):
        run.stage("codec", redo=True)
    assert (run.folder / "codec" / "codec.pt").exists()


def former_record(run: Run, **changes: object) -> str:
    """The recipe as runs of before wrote it down."""

    def renamed(part: Any) -> Any:
        former = {name: key for key, name in FORMER_NAMES.items()}
        return {former.get(key, key): renamed(value) for key, value in part.items()} if isinstance(part, dict) else part

    return json.dumps(renamed(asdict(replace(run.preset, **changes))))  # type: ignore[arg-type]  # fields of any type


def test_a_run_of_before_is_not_adopted_under_another_recipe(run: Run) -> None:
    folder = run.folder / "warm_up"
    (folder / FILE).unlink()
    (folder / FORMER_RECORD).write_text(former_record(run, dim=64))
    with pytest.raises(
        StageError, match=r"warm_up was trained with another recipe: its recipe changed \(dim 64 → 32\)"
    ):
        run.stage("warm_up")
    assert not (folder / FILE).exists()
    (folder / FORMER_RECORD).write_text(former_record(run))
    assert run.stage("warm_up")
    assert (folder / FILE).exists()
