"""`lightcone bench first-start` plays a real server that begins with an empty cache."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import lightcone
from benchmarks import first_start
from benchmarks.first_start import Watch
from server.errors import ConfigError
from world.testing import tiny_world


def test_frames_are_counted_by_complete_period() -> None:
    watch = Watch(fps=2.0, arrived=[0.5 * number for number in range(19)] + [9.2, 9.4, 10.0, 11.0, 20.0, 25.0])
    assert watch.kept() == pytest.approx([21 / 20, 2 / 20])


def test_it_plays_while_the_server_compiles_and_prints_what_steps_take_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a compiler, so that it is quick: the server says so. `bench step` has a test of its own."""
    tiny_world().save(tmp_path / "tiny")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in {"MOST": 2, "SETTLE_S": 0.5, "TRIALS_S": 2.5, "PERIOD_S": 1}.items():
        monkeypatch.setattr(first_start, name, value)
    caches = []

    def steps(_: str, sessions: list[int]) -> dict[str, Any]:
        caches.append(os.environ["LIGHTCONE_CACHE"])
        return {"sessions": [{"sessions": number, "step_ms": 1.0, "ratio": 1.25} for number in sessions]}

    monkeypatch.setattr(first_start, "_steps", steps)
    before = os.environ["LIGHTCONE_CACHE"]
    words = ["bench", "first-start", "--world", str(tmp_path / "tiny"), "--minutes", "1", "--sessions", "1", "--json"]
    assert lightcone.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["compilation"])[-1] == "no C++ compiler"
    assert min(report["compilation"].values()) >= first_start.SETTLE_S, "counted from when the server was ready"
    assert 1 <= report["players_before"] <= 2
    assert 1 <= report["players_after"] <= 2
    assert 0 < report["kept_least"] <= report["kept_median"]
    assert [row["sessions"] for row in report["step"]["sessions"]] == [1]
    assert caches != [before], "steps are measured with what the server has compiled"
    assert os.environ["LIGHTCONE_CACHE"] == before


def test_a_length_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="--minutes 0"):
        first_start.run(Namespace(minutes=0.0))
