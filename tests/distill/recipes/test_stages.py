"""Stages as data: when one runs, is skipped, continues, or is out of date; runs from before fingerprints were kept."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.recipes import catalogue, names
from distill.recipes.fingerprint import FILE, read_record
from distill.recipes.products import StageError
from distill.recipes.run import Run
from distill.recipes.stages import STAGES, with_steps
from distill.training.state import load_product, read_state, trained_steps
from world.errors import LightconeError
from world.format_1 import weights_to_disk

FORMER = {name: former for former, name in names.STAGE_ALIASES.items()}
"""Name of a stage → its former name."""


@pytest.fixture
def run(run: Run) -> Run:
    """A run of the smallest recipe that has its data, its codec and its latents."""
    run_stages(run, "collect", "codec", "latents")
    return run


def run_stages(run: Run, *stages: str) -> None:
    for stage in stages:
        assert run.stage(stage)


def with_learning_rate(run: Run, trainer: str, lr: float) -> None:
    run.preset = replace(run.preset, **{trainer: replace(getattr(run.preset, trainer), lr=lr)})


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_names_are_those_of_the_stages_and_recipes() -> None:
    assert tuple(STAGES) == names.STAGES
    assert set(names.STUDENT_STAGES) <= STAGES.keys()
    assert set(names.STAGE_ALIASES.values()) <= STAGES.keys()
    assert tuple(catalogue.PRESETS) == names.RECIPES
    assert tuple(catalogue.GENERIC_PRESETS) == names.GENERIC_RECIPES


def test_names_need_no_torch() -> None:
    code = "import sys, distill, distill.recipes, distill.recipes.names\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


def test_stages_read_earlier_stages_only(run: Run) -> None:
    (run.folder / "warm_up").mkdir()
    (run.folder / "warm_up" / "state.pt").touch()
    order = list(STAGES)
    for stage in STAGES.values():
        assert all(order.index(name) < order.index(stage.name) for name in stage.inputs(run)), stage.name


def test_every_setting_of_the_recipe_is_in_a_fingerprint(run: Run) -> None:
    """Except those that choose the data, which the recorded data tell, and those that change no product."""
    (run.folder / "warm_up").mkdir()
    (run.folder / "warm_up" / "state.pt").touch()
    fingerprinted = {name.split(".")[0] for stage in STAGES.values() for name in stage.fingerprint(run)}
    settings = set(type(run.preset).__dataclass_fields__)
    only_at_export = {"sampler", "early_sampler"}
    chosen_as_input = {"student_from", "shipped_stage"}
    assert settings - fingerprinted == {"collect", "compile_blocks"} | only_at_export | chosen_as_input


def test_a_finished_stage_is_skipped(run: Run) -> None:
    run_stages(run, "state_estimator", "warm_up")
    before = {path: stamp(path) for path in run.folder.rglob("*") if path.is_file()}
    run_stages(run, "codec", "latents", "warm_up")
    assert {path: stamp(path) for path in before} == before


def test_a_changed_recipe_stops_and_names_what_changed(run: Run) -> None:
    product, before = run.folder / "codec" / "codec.pt", stamp(run.folder / "codec" / "codec.pt")
    with_learning_rate(run, "codec_trainer", 0.002)
    with pytest.raises(
        StageError, match=r"codec is out of date: its recipe changed \(codec_trainer.lr 0.001 → 0.002\)"
    ):
        run.stage("codec")
    with pytest.raises(StageError, match="Give --redo to make it again"):
        run.all_stages()
    assert stamp(product) == before
    with_learning_rate(run, "codec_trainer", 0.001)
    run_stages(run, "codec")


def test_deleting_the_record_keeps_the_product(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    before = stamp(run.folder / "codec" / "codec.pt")
    with_learning_rate(run, "codec_trainer", 0.002)
    (run.folder / "codec" / FILE).unlink()
    with caplog.at_level(logging.INFO):
        run_stages(run, "codec", "codec")
    assert caplog.text.count("codec: made before fingerprints were kept; it counts as up to date") == 1
    assert stamp(run.folder / "codec" / "codec.pt") == before


def test_a_changed_input_renews_derived_data_and_stops_what_was_trained_on_it(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run_stages(run, "state_estimator", "warm_up")
    first = torch.load(run.latents, weights_only=True)
    with_learning_rate(run, "codec_trainer", 0.1)
    assert run.stage("codec", redo=True)
    with caplog.at_level(logging.INFO):
        run_stages(run, "latents")
    assert "latents: its input codec was made again, so it is made again" in caplog.text
    assert not torch.equal(torch.load(run.latents, weights_only=True)[0][0], first[0][0])
    with pytest.raises(StageError, match="warm_up is out of date: its input latents was made again"):
        run.stage("warm_up")
    assert "warm_up: its input state_estimator is out of date: its input codec was made again" in caplog.text


def test_redo_repeats_stages_that_are_out_of_date_and_no_others(run: Run) -> None:
    run_stages(run, "decoder", "state_estimator", "warm_up", "teacher")
    before = {name: stamp(run.folder / name / "state.pt") for name in ("codec", "decoder", "warm_up", "teacher")}
    with_learning_rate(run, "warm_up_trainer", 0.1)
    assert run.all_stages(redo=True)
    remade = {name for name, time in before.items() if stamp(run.folder / name / "state.pt") != time}
    assert remade == {"warm_up", "teacher"}
    assert run.all_stages(), "everything is up to date now"
    record = read_record(run.folder / "warm_up")
    assert record is not None
    assert record.settings["warm_up_trainer.lr"] == 0.1


def test_redo_of_one_stage_trains_it_from_the_beginning(run: Run) -> None:
    before = torch.load(run.folder / "codec" / "codec.pt", weights_only=True)
    run.preset = with_steps(run.preset, "codec", 2)
    assert run.stage("codec", redo=True)
    assert trained_steps(run.folder / "codec") == 2
    after = torch.load(run.folder / "codec" / "codec.pt", weights_only=True)
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    with pytest.raises(StageError, match="export runs each time"):
        run.stage("export", redo=True)


def test_redo_deletes_nothing_while_an_input_is_missing(run: Run) -> None:
    before = stamp(run.latents)
    (run.folder / "codec" / "codec.pt").unlink()
    with pytest.raises(StageError, match=r"latents needs .*codec.pt: run the stage `codec` first"):
        run.stage("latents", redo=True)
    assert stamp(run.latents) == before


def test_more_steps_continue_a_finished_stage_and_fewer_keep_it(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    codec, recipe = run.folder / "codec", run.preset
    first = torch.load(codec / "codec.pt", weights_only=True)
    with caplog.at_level(logging.INFO):
        run.preset = with_steps(recipe, "codec", 5)
        run_stages(run, "codec")
        assert "codec: 3 steps are done; training continues to 5" in caplog.text
        assert trained_steps(codec) == 5
        lines = [json.loads(line)["step"] for line in (codec / "metrics.jsonl").read_text().splitlines()]
        assert lines == [1, 2, 3, 4, 5], "from its state, not from the beginning"
        longer = torch.load(codec / "codec.pt", weights_only=True)
        assert any(not torch.equal(value, longer[name]) for name, value in first.items())
        run.preset = recipe
        before = stamp(codec / "codec.pt")
        run_stages(run, "codec")
        assert "codec: kept with its 5 steps; 3 were asked for" in caplog.text
        assert stamp(codec / "codec.pt") == before
        run_stages(run, "latents")
    assert "latents: its input codec was made again" in caplog.text


def test_a_stage_that_ran_out_of_time_may_get_other_steps_but_no_other_recipe(run: Run) -> None:
    run_stages(run, "state_estimator")
    run.stop_after_s = 0.0
    assert not run.stage("warm_up")
    with_learning_rate(run, "warm_up_trainer", 0.5)
    with pytest.raises(
        StageError, match=r"warm_up is out of date: its recipe changed \(warm_up_trainer.lr 0.001 → 0.5\)"
    ):
        run.stage("warm_up")
    with_learning_rate(run, "warm_up_trainer", 1e-3)
    run.preset, run.stop_after_s = with_steps(run.preset, "warm_up", 4), None
    assert run.stage("warm_up")
    assert trained_steps(run.folder / "warm_up") == 4


def test_another_student_puts_a_decoder_tuned_for_the_first_out_of_date(run: Run) -> None:
    run_stages(run, "state_estimator", "warm_up", "decoder_finetuning", "teacher", "teacher_forced")
    with pytest.raises(StageError, match="decoder_finetuning is out of date: it is no longer made from warm_up"):
        run.stage("decoder_finetuning")


def test_recording_other_data_puts_the_codec_out_of_date(run: Run) -> None:
    path = run.folder / "data" / "dataset.json"
    content = json.loads(path.read_text())
    content["collected"]["num_heldout"] += 1
    path.write_text(json.dumps(content))
    run_stages(run, "codec")  # held-out data are not trained on
    content["collected"]["seed"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(StageError, match="codec is out of date: its input collect was made again"):
        run.stage("codec")


def test_data_recorded_with_other_settings_than_the_recipes_are_reported(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.preset = replace(run.preset, collect=replace(run.preset.collect, frames_per_stream=70))
    with caplog.at_level(logging.INFO):
        run_stages(run, "collect", "codec")
    assert "collect: training uses the data as recorded, with frames_per_stream 60 (recipe: 70)" in caplog.text


def test_a_damaged_record_is_refused(run: Run) -> None:
    (run.folder / "codec" / FILE).write_text("{")
    with pytest.raises(LightconeError, match=r"stage.json is damaged .* delete it to keep the product"):
        run.stage("codec")


def in_the_former_layout(run: Run) -> None:
    """Turn a run into one from before: former names of folders, modules and weights, and no records."""
    for path in run.folder.rglob(FILE):
        path.unlink()
    state = read_state(run.folder / "state_estimator")
    for part in ("modules", "optimisers"):
        state[part] = {FORMER["state_estimator"]: state[part]["state_estimator"]}
    torch.save(state, run.folder / "state_estimator" / "state.pt")
    for stage in ("codec", "decoder", "decoder_finetuning"):
        state = read_state(run.folder / stage)
        state["ema"] = former_weights(state["ema"])
        state["modules"] = {name: former_weights(weights) for name, weights in state["modules"].items()}
        torch.save(state, run.folder / stage / "state.pt")
    codec = run.folder / "codec" / "codec.pt"
    torch.save(former_weights(torch.load(codec, weights_only=True)), codec)
    for name, former in FORMER.items():
        (run.folder / name).rename(run.folder / former)


def former_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = weights_to_disk(weights)
    assert renamed.keys() != weights.keys()
    return renamed


def test_a_run_in_the_former_layout_is_used_as_it_is(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run.all_stages()
    expected = {name: load_product(run.folder / name)[0] for name in STAGES if run.has_weights(name)}
    codec = run.codec().state_dict()
    in_the_former_layout(run)
    former = {path.name for path in run.folder.iterdir()}
    assert {*FORMER.values(), "data", "codec", "decoder", "latents"} <= former
    before = {path.relative_to(run.folder): stamp(path) for path in run.folder.rglob("*.pt")}
    with caplog.at_level(logging.INFO):
        assert run.all_stages()
    for name in ("codec", "state_estimator", "distilled", "decoder_finetuning"):
        assert f"{name}: made before fingerprints were kept; it counts as up to date" in caplog.text
    after = {path.relative_to(run.folder): stamp(path) for path in run.folder.rglob("*.pt")}
    aliases = names.STAGE_ALIASES
    assert after == {Path(aliases.get(p.parts[0], p.parts[0]), *p.parts[1:]): time for p, time in before.items()}
    for name, weights in expected.items():
        found = load_product(run.folder / name)[0]
        assert weights.keys() == found.keys()
        assert all(torch.equal(value, found[key]) for key, value in weights.items())
    assert all(torch.equal(value, run.codec().state_dict()[key]) for key, value in codec.items())


def test_a_run_in_the_former_layout_continues_and_goes_out_of_date_like_any_other(run: Run) -> None:
    run_stages(run, "decoder", "state_estimator", "warm_up", "decoder_finetuning")
    in_the_former_layout(run)
    for former, stage in (*names.STAGE_ALIASES.items(), ("codec", "codec")):
        run.preset = with_steps(run.preset, former, 4)
        assert run.stage(former)
        assert trained_steps(run.folder / stage) == 4
        assert not (run.folder / former).exists() or former == stage
    with pytest.raises(StageError, match="decoder is out of date: its input codec was made again"):
        run.stage("decoder")


def test_steps_need_a_stage_that_trains(run: Run) -> None:
    for stage in (None, "latents", "export"):
        with pytest.raises(LightconeError, match="--steps needs a --stage that trains"):
            with_steps(run.preset, stage, 5)
    with pytest.raises(StageError, match="stage 'critic': choose one of collect, codec"):
        run.stage("critic")


def test_training_says_how_many_steps_are_to_come(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run_stages(run, "decoder", "state_estimator", "warm_up", "teacher")
    run.asked_steps = 1
    run_stages(run, "teacher_forced")
    run.asked_steps, run.preset = None, with_steps(run.preset, "few_step", 1200)
    del caplog.records[:]
    run.stop_after_s = 0.0
    with caplog.at_level(logging.INFO):
        assert not run.all_stages(), "stopped in few_step"
        assert not run.all_stages()
    said = [record.getMessage() for record in caplog.records if "to come" in record.getMessage()]
    rest = "distilled 3, decoder_finetuning 3"
    assert said == [f"bouncer: training steps to come: few_step {number}, {rest}" for number in ("1,200", "1,199")]


def test_steps_that_were_asked_for_are_remembered_until_the_stage_is_named_without(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.asked_steps = 2
    assert run.stage("decoder")
    run.asked_steps = None
    with caplog.at_level(logging.INFO):
        assert run.all_stages()
    assert trained_steps(run.folder / "decoder") == 2
    assert "decoder: 2 steps, as --steps asked for; `--stage decoder` takes the recipe's" in caplog.text
    assert "bouncer: stage 3 of 12: decoder\n" in caplog.text
    run.preset = replace(run.preset, decoder_finetuning_trainer=None)
    with caplog.at_level(logging.INFO):
        assert run.all_stages()
    assert "bouncer: stage 11 of 12: decoder_finetuning, which this recipe leaves out\n" in caplog.text
    run.preset = with_steps(run.preset, "decoder", 3)
    assert run.stage("decoder")
    assert trained_steps(run.folder / "decoder") == 3
