"""The command line as a newcomer and as a script meet it."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import lightcone
from benchmarks.cli import BENCHMARKS
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one servable world, `tiny`, that LIGHTCONE_WORLDS names."""
    tiny_world().save(tmp_path / "tiny")
    monkeypatch.setenv("LIGHTCONE_WORLDS", str(tmp_path))
    return tmp_path


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command as its own process."""
    command = [sys.executable, str(ROOT / "lightcone.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)


def test_help_names_every_verb_and_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lightcone.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {verb} " in text for verb in lightcone.VERBS)
    assert "lightcone play" in text


@pytest.mark.parametrize("verb", lightcone.VERBS)
def test_every_verb_explains_itself_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lightcone.main([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:\n" in text
    for example in lightcone.VERBS[verb].examples:
        assert example in text


@pytest.mark.parametrize("example", [example for entry in lightcone.VERBS.values() for example in entry.examples])
def test_the_examples_in_the_help_are_accepted(example: str) -> None:
    program, verb, *rest = example.split()
    assert program == "lightcone"
    assert lightcone.build_parser(verb).parse_args([verb, *rest]).verb == verb


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lightcone.main(["bench", name, "--help"])
    assert stop.value.code == 0
    assert f"lightcone bench {name}" in capsys.readouterr().out


def test_no_help_text_needs_torch() -> None:
    code = (
        "import sys, lightcone\n"
        "for verb in (None, *lightcone.VERBS): lightcone.build_parser(verb).format_help()\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a verb's module imports torch when it is loaded {done.stderr}"


def test_help_takes_less_than_a_third_of_a_second_of_processor_time() -> None:
    """Processor time, so that a busy machine does not count; the least of three runs."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_no_verb_shows_the_help_and_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert lightcone.main([]) == lightcone.EXIT_USAGE
    assert "usage: lightcone" in capsys.readouterr().out


def test_an_unknown_verb_is_answered_with_the_verbs_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lightcone.main(["sevre"])
    assert stop.value.code == lightcone.EXIT_USAGE
    text = capsys.readouterr().err
    assert "'sevre'" in text
    assert "serve" in text


@pytest.mark.parametrize("words", [("serve", "--world", "atlantis"), ("play", "atlantis")])
def test_an_unknown_world_is_named_with_the_remedy_and_no_traceback(words: tuple[str, ...], shelf: Path) -> None:
    done = run(*words)
    assert done.returncode == lightcone.EXIT_USAGE
    assert "'atlantis'" in done.stderr
    assert "tiny" in done.stderr  # the world there is
    assert "lightcone train" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_world_is_named_without_a_traceback(shelf: Path) -> None:
    (shelf / "tiny" / "world.json").write_text("{}", encoding="utf-8")
    done = run("worlds")
    assert done.returncode == lightcone.EXIT_USAGE
    assert str(shelf / "tiny" / "world.json") in done.stderr
    assert "Traceback" not in done.stderr


def test_worlds_lists_for_people_and_for_scripts(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightcone.main(["worlds"]) == 0
    assert "Tiny: 32x32 at 30 frames/s; controls: Up, Down" in capsys.readouterr().out
    assert lightcone.main(["worlds", "--json"]) == 0
    listed = {Path(entry["path"]).name: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["tiny"]["path"] == str(shelf / "tiny")
    assert [button["name"] for button in listed["tiny"]["buttons"]] == ["up", "down"]


def test_without_worlds_the_listing_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("world.catalogue.SHIPPED", tmp_path)
    monkeypatch.delenv("LIGHTCONE_WORLDS", raising=False)
    assert lightcone.main(["worlds"]) == 0
    assert "lightcone train" in capsys.readouterr().out


def test_a_fault_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only errors meant for users become one line; a bug must stay visible."""

    def broken(args: argparse.Namespace) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("server.cli.worlds.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        lightcone.main(["worlds"])


def test_a_reader_that_goes_away_is_no_error(shelf: Path) -> None:
    command = [sys.executable, str(ROOT / "lightcone.py"), "worlds", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0
