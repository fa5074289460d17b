"""The step benchmark on a small world: its figures hang together, and it steps as often as it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lightcone
from benchmarks.step import WARM_UP_STEPS, measure
from world.testing import tiny_world


@pytest.mark.parametrize(("config", "frames_per_step"), [("pixel", 1), ("wan", 12)])
def test_rates_follow_from_the_times(config: str, frames_per_step: int) -> None:
    world = tiny_world(config=config)
    before = world.forward_calls
    row = measure(world, num_sessions=2, num_steps=4)
    assert world.forward_calls - before >= (WARM_UP_STEPS + 4) * world.sampler.num_steps
    each = frames_per_step * 1e3 / (row["step_ms_p50"] + row["decode_ms_p50"])
    assert row["frames_per_s_each"] == pytest.approx(each)
    assert row["frames_per_s_total"] == pytest.approx(2 * each)


def test_the_command_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_world().save(tmp_path / "tiny")
    threads = torch.get_num_threads()
    words = ["bench", "step", "--world", str(tmp_path / "tiny"), "--sessions", "1", "3", "--steps", "2", "--json"]
    assert lightcone.main([*words, "--threads", "1"]) == 0
    torch.set_num_threads(threads)
    report = json.loads(capsys.readouterr().out)
    assert [row["sessions"] for row in report["sessions"]] == [1, 3]
    assert report["world"] == "tiny-pixel"
    assert all(row["step_ms_p50"] > 0 for row in report["sessions"])
