"""What `lightcone eval` prints: every figure in words and tables, and a verdict. On the shipped reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.evaluation.tables import report_text, verdict

ROOT = Path(__file__).resolve().parents[3]


def shipped(world: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((ROOT / "checkpoints" / world / "report.json").read_text())
    return report


@pytest.mark.parametrize("world", ["pong", "doom"])
def test_every_figure_is_printed_and_no_dictionary(world: str) -> None:
    report = shipped(world)
    text = report_text(report)
    assert "{" not in text
    assert all(name in text for name in report if name != "stages")
    assert all(label in text for label in report.get("stages", {}))
    assert f"{report['psnr']['8']:.3f}".rstrip("0") in text


def test_stages_are_printed_as_a_table() -> None:
    stages = shipped("pong")["stages"]
    text = report_text(shipped("pong"))
    (line,) = [line for line in text.splitlines() if line.startswith("distilled, 2 steps")]
    assert f"{stages['distilled, 2 steps']['psnr']['4']:.3f}".rstrip("0") in line
    assert "PSNR 4" in text


def test_a_world_that_predicts_is_said_to() -> None:
    assert verdict(shipped("pong")) == [
        "It predicts better than copying the last frame, at every frame (by 17.4 dB at frame 1).",
        "It follows its actions: under another clip's actions its frames are further from the truth.",
    ]


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ((20.0, 19.0, 18.0), ", at every frame: it has not learned to predict."),
        ((24.0, 26.0, 26.0), " at frame 1, and better at the others."),
        ((25.0, 24.0, 26.0), " at frame 1, 4, and better at the others."),
    ],
)
def test_a_world_that_is_worse_than_copying_is_said_to_be(own: tuple[float, ...], sentence: str) -> None:
    report = {"psnr": dict(zip("148", own, strict=True)), "psnr_copy_last": {"1": 25.0, "4": 24.0, "8": 23.0}}
    assert verdict(report) == [f"It is worse than copying the last frame{sentence}"]


def test_what_is_not_shown_is_said_not_to_be() -> None:
    report = {
        "psnr": {"4": 25.0},
        "psnr_copy_last": {"4": 24.0},
        "psnr_gain_other_4": {"mean": 0.1, "lower": -0.2},
        "psnr_gain_trivial_4": {"mean": 0.2, "lower": -0.1, "against": "mean_colour"},
    }
    assert verdict(report)[1:] == [
        "It is not shown to follow its actions: under another clip's actions its frames are as close to the truth at "
        "frame 4.",
        "At frame 4 it is not shown to be better than the last picture's mean colour.",
    ]
