"""A wrong number or folder on the command line is one line, and nothing is recorded, trained or measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import lightcone
from distill.recipes.generic import quick

FEWEST = quick("bouncer").longest_clip_frames + 1
BOUNCER = ("--env", "bouncer")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("collect", *BOUNCER, "--streams", "0"), "collect: --streams 0: must be at least 1"),
        (("collect", *BOUNCER, "--frames", "-1"), "collect: --frames -1: must be at least 1"),
        (
            ("collect", *BOUNCER, "--frames", str(FEWEST - 1)),
            f"collect: --frames {FEWEST - 1}: must be at least {FEWEST}, which training needs",
        ),
        (("collect", *BOUNCER, "--height", "0"), "collect: --height 0: must be a multiple of 16, such as 16"),
        (("collect", *BOUNCER, "--width", "63"), "collect: --width 63: must be a multiple of 16, such as 64"),
        (("train", *BOUNCER, "--minutes", "-1"), "train: --minutes -1: must be a finite number above 0"),
        (("train", *BOUNCER, "--minutes", "0"), "train: --minutes 0: must be a finite number above 0"),
        (("train", *BOUNCER, "--minutes", "nan"), "train: --minutes nan: must be a finite number above 0"),
        (("train", *BOUNCER, "--steps", "-5"), "train: --steps -5: must be at least 1"),
        (("train", *BOUNCER, "--steps", "5"), "train: --steps needs a --stage that trains, but no stage was named"),
        (
            ("train", *BOUNCER, "--threads", "100000"),
            f"train: --threads 100000: must be from 1 to {os.cpu_count()}, the number of cores",
        ),
        (("eval", "pong", "--starts", "0"), "eval: --starts 0: must be at least 1"),
        (("eval", "pong", "--teacher-starts", "-3"), "eval: --teacher-starts -3: must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_number_is_refused_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "runs"))
    assert lightcone.main(words) == lightcone.EXIT_USAGE
    assert capsys.readouterr().err == f"lightcone {said}\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [("collect", *BOUNCER), ("train", *BOUNCER), ("eval", "pong")], ids=lambda w: w[0])
def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "file" / "runs"))
    assert lightcone.main(words) == lightcone.EXIT_USAGE
    said = capsys.readouterr().err
    assert "cannot be written to (Not a directory): make it writable, or choose another" in said
    assert said.count("\n") == 1


def test_a_checkpoint_folder_that_cannot_be_written_to_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "runs"))
    assert lightcone.main(["train", *BOUNCER, "--out", str(tmp_path / "file" / "out")]) == lightcone.EXIT_USAGE
    assert f"{tmp_path / 'file' / 'out'} cannot be written to (Not a directory)" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_fewest_frames_that_are_accepted_can_be_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "runs"))
    assert lightcone.main(["collect", *BOUNCER, "--streams", "1", "--frames", str(FEWEST)]) == 0
