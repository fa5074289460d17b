"""A wrong number on the command line is one line, and nothing is recorded, trained or measured."""

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


def test_the_fewest_frames_that_are_accepted_can_be_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path / "runs"))
    assert lightcone.main(["collect", *BOUNCER, "--streams", "1", "--frames", str(FEWEST)]) == 0
