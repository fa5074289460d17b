"""From nothing to a measured checkpoint with the smallest recipe, for an environment and for a folder of videos."""

import json
from dataclasses import replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import lightcone
from distill.data.clips import DatasetError
from distill.data.collect import collect
from distill.evaluation.evaluate import EvaluationConfig, held_out
from distill.evaluation.generators import student_generator
from distill.evaluation.long_rollouts import DriftConfig, drift, long_streams
from distill.recipes.choice import choose, recipe_of
from distill.recipes.export import make_card
from distill.recipes.folders import world_run
from distill.recipes.products import StageError
from distill.recipes.run import Run
from world.checkpoint import World
from world.errors import LightconeError
from world.format_1 import fields_to_disk
from world.testing import tiny_world


def _call(verb: str, *words: str) -> int:
    """Run a verb as the command line does, but let its errors through."""
    args = lightcone.build_parser(verb).parse_args([verb, *words])
    return int(import_module(lightcone.VERBS[verb].module).run(args))


def _bench(name: str, *words: str) -> int:
    """Run a benchmark with its own arguments."""
    return _call("bench", name, *words)


def _report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    printed = capsys.readouterr().out
    report: dict[str, Any] = json.loads(printed[printed.index("{") :])
    return report


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare stages at few numbers of steps, which takes a fraction of the time."""
    config = partial(EvaluationConfig, teacher_steps=(3,), euler_steps=(3,), student_steps=(2, 1))
    monkeypatch.setattr("distill.cli.eval.EvaluationConfig", config)


@pytest.mark.usefixtures("few_steps")
def test_an_environment_becomes_a_world_that_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("train", "--env", "bouncer", "--preset", "smoke") == 0
    world = World.load("checkpoints/bouncer")
    assert world.card.provenance["environment"] == "bouncer"
    assert world.card.provenance["training_frames"] == 3 * 60
    assert len(world.starts) == 3
    capsys.readouterr()
    _call("eval", "bouncer", "--no-drift", "--stages", "--card", "--json", "--starts", "6", "--teacher-starts", "3")
    report = _report(capsys)
    assert report["num_starts"] == 6
    assert set(report["psnr"]) == {"1", "2", "4", "8", "16", "32"}, "as far as streams of 60 frames go"
    assert np.isfinite(report["psnr_gain_other_8"]["lower"])
    rows = {"teacher, 3 steps", "teacher_forced, 3 Euler steps", "few_step, 1 steps", "distilled, 2 steps"}
    assert rows <= set(report["stages"])
    steps = EvaluationConfig()
    assert (50 in steps.teacher_steps, 16 in steps.euler_steps, {1, 2} <= set(steps.student_steps)) == (True,) * 3
    card = Path("checkpoints/bouncer/README.md").read_text()
    assert "models the state variables paddle_y. Training used their true values" in card
    assert "| teacher_forced, 3 Euler steps |" in card
    assert (tmp_path / "checkpoints" / "bouncer" / "strips.png").exists()
    _bench("speedup", "--world", "bouncer", "--repeats", "1", "--starts", "2", "--teacher-steps", "3", "--json")
    timed = _report(capsys)
    assert timed["quality"]["copy_last"] == 0.0, "without a probe, quality is the gain over copying the last frame"
    assert timed["speedup"] == pytest.approx(timed["teacher_ms_per_clip"] / timed["student_ms_per_frame"])


def test_data_left_by_evaluation_do_not_replace_training_data(run: Run) -> None:
    collect(run.folder / "data", replace(run.preset.collect, num_train=0), quiet=True)
    before = run.dataset().paths("heldout")[0].stat().st_mtime_ns
    assert run.stage("collect")
    assert len(run.dataset().paths("train")) == run.preset.collect.num_train
    assert run.dataset().paths("heldout")[0].stat().st_mtime_ns == before
    assert run.dataset().collected["num_train"] == run.preset.collect.num_train


def test_training_uses_data_that_were_collected_with_other_arguments(run: Run) -> None:
    _call("collect", "--env", "bouncer", "--streams", "2", "--frames", "40")
    (run.folder / "data" / "train" / "episode_00001.npz").unlink()
    assert run.stage("collect")
    assert [len(episode) for episode in run.dataset().episodes("train")] == [40, 40]
    assert choose("bouncer", None, "smoke")[1].collect.environment == "bouncer"


def test_a_run_starts_from_a_finished_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call("train", "--env", "bouncer", "--preset", "smoke") == 0
    with pytest.raises(LightconeError, match="already has the stage codec: delete the folder, or leave --from out"):
        _call("train", "--env", "bouncer", "--preset", "smoke", "--from", "checkpoints/bouncer")
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "other"))
    with pytest.raises(LightconeError, match="has another shape than the recipe: codec_widths"):
        _call("train", "--env", "bouncer", "--preset", "quick", "--from", "checkpoints/bouncer")
    _call("train", "--env", "bouncer", "--preset", "smoke", "--from", "checkpoints/bouncer", "--out", "second")
    first, second = World.load("checkpoints/bouncer"), World.load("second")
    codecs = [dict(world.codec.named_parameters()) for world in (first, second)]
    assert all(torch.equal(weight, codecs[1][name]) for name, weight in codecs[0].items() if "encoder" in name)
    assert any(not torch.equal(weight, codecs[1][name]) for name, weight in codecs[0].items() if "decoder" in name)
    student = torch.load(world_run("bouncer") / "warm_up" / "state.pt", weights_only=True)["ema"]
    shipped = World.load("checkpoints/bouncer", dtype=torch.float32).transformer.state_dict()
    assert all(torch.equal(weight, shipped[name]) for name, weight in student.items())
    description = json.loads(Path("second/world.json").read_text())
    (state_variables,) = fields_to_disk({"state_variables": ()})
    description["codec"][state_variables][0]["periods"][0] = 99.0
    Path("second/world.json").write_text(json.dumps(description))
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "third"))
    with pytest.raises(LightconeError, match="but its environment names"):
        _call("train", "--env", "bouncer", "--preset", "smoke", "--from", "second")


def test_decoder_fine_tuning_leaves_encoder_and_student_unchanged(run: Run) -> None:
    for stage in ("collect", "codec", "latents"):
        assert run.stage(stage)
    with pytest.raises(StageError, match=r"needs .*state_estimator.* run the stage `state_estimator` first"):
        run.stage("warm_up")
    assert run.stage("state_estimator")
    assert run.stage("warm_up")
    before = {name: value.clone() for name, value in run.codec().state_dict().items()}
    assert run.stage("decoder_finetuning")
    after = run.codec().state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert {"decoder", "from_latents"} <= changed <= {"decoder", "from_latents", "position"}
    run.preset = replace(run.preset, decoder_finetuning_trainer=None)
    assert run.stage("decoder_finetuning")


def test_streams_of_two_environments_are_not_mixed(run: Run) -> None:
    collect(run.folder / "data", replace(run.preset.collect, num_train=1, num_heldout=1), quiet=True)
    with pytest.raises(DatasetError, match="holds bouncer at 32x32, not pong at 96x80"):
        collect(run.folder / "data", replace(run.preset.collect, environment="pong"), quiet=True)


def test_the_drift_of_a_random_world_is_large_and_differs_from_its_codecs(run: Run) -> None:
    config = DriftConfig(num_frames=40, num_clips=2, num_real_clips=5)
    world = tiny_world()

    def measure() -> dict[str, float]:
        streams = long_streams(world, run.preset.collect, run.folder, config)
        return drift(world.card, student_generator(world, seed=1), streams)

    figures = measure()
    assert figures["drift_max"] > 1
    assert figures["drift_codec_max"] > 1
    assert figures["drift_codec_max"] != figures["drift_max"]
    assert measure() == figures, "the same streams give the same figures"


def _film(folder: Path, num: int = 4, frames: int = 80) -> None:
    """Film squares that move to the right, or to the left while `left` is pressed."""
    folder.mkdir()
    for number in range(num):
        path, x, lines = folder / f"clip{number}.mp4", 20, []
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=20)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            stream.time_base = Fraction(1, 20)
            for t in range(frames):
                left = (t // 9 + number) % 2 == 0
                x = (x + (-2 if left else 2)) % 56
                picture = np.full((64, 64, 3), 30, np.uint8)
                picture[24:32, x : x + 8] = 220
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = t
                container.mux(stream.encode(frame))
                lines.append(json.dumps({"buttons": ["left"] if left else []}))
            container.mux(stream.encode())
        path.with_suffix(".actions.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    _film(tmp_path / "My Films")
    return tmp_path / "My Films"


def test_a_folder_of_videos_becomes_a_world_that_is_measured(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("train", "--videos", str(films), "--preset", "smoke") == 0
    world = World.load("checkpoints/my-films")
    assert [button.name for button in world.card.buttons] == ["left"]
    assert world.card.provenance == {
        "environment": "my-films",
        "videos": 4,
        "training_frames": 240,
        "stage": "distilled",
        "command": "lightcone train --videos FOLDER --name my-films",
    }
    before = {path: path.stat().st_mtime_ns for path in (world_run("my-films") / "data").rglob("*")}
    capsys.readouterr()
    _call("eval", "my-films", "--json", "--starts", "4")
    report = _report(capsys)
    assert report["psnr"]["32"] > 0
    assert "psnr_other_actions" not in report, "a single held-out file has no other stream to take actions from"
    assert not [name for name in report if name.startswith("drift")]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is recorded again"
    assert _call("train", "my-films", "--preset", "smoke", "--stage", "export") == 0
    (world_run("my-films") / "data" / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="import them again with `lightcone collect --videos FOLDER --name my-films"):
        held_out(world.card, recipe_of(world.card), world_run("my-films"))


def test_imported_videos_are_trained_on_by_name(films: Path) -> None:
    _call("collect", "--videos", str(films), "--name", "films", "--height", "32", "--width", "48")
    name, preset = choose("films", None, "smoke")
    run = Run(name, preset, world_run(name), films.parent / "checkpoint", quiet=True)
    assert run.stage("collect")
    assert (run.dataset().spec.height, run.dataset().spec.width) == (32, 48)
    card = make_card(name, preset, run.dataset())
    assert (card.width, card.title) == (48, "films"), "the name that was given is what the page shows"
    assert make_card("my-films", preset, run.dataset()).title == "My Films"


def test_an_unknown_world_is_answered_with_the_choices() -> None:
    with pytest.raises(
        LightconeError, match=r"no preset for 'atlantis', and no recorded data .* choose pong, doom, or give"
    ):
        choose("atlantis", None, "quick")
    with pytest.raises(LightconeError, match="name one of"):
        choose("pong", "bouncer", "quick")
    with pytest.raises(LightconeError, match="name one of"):
        choose(None, None, "quick")


def test_a_world_without_a_teacher_is_measured_too(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_world().save("checkpoints/bouncer")
    description = json.loads(Path("checkpoints/bouncer/world.json").read_text())
    description["card"] |= {"name": "bouncer", "provenance": {"environment": "bouncer"}}
    Path("checkpoints/bouncer/world.json").write_text(json.dumps(description))
    _call("eval", "bouncer", "--no-drift", "--stages", "--card", "--json", "--starts", "4", "--teacher-starts", "2")
    assert _report(capsys)["stages"] == {}
    assert Path("checkpoints/bouncer/strips.png").exists()
    assert run.dataset().collected["num_train"] == 0, "only held-out streams were recorded"
