"""The step benchmark on a small world: its figures are consistent, and it takes the steps it reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import lightcone
from benchmarks.matrix_products import MatrixProducts, without_gaps
from benchmarks.step import WARM_UP_STEPS, measure
from world.actions import Actions
from world.rollout.thread_policy import ThreadPolicy
from world.testing import tiny_world


@pytest.mark.parametrize(("config", "frames_per_step"), [("pixel", 1), ("wan", 12)])
def test_rates_follow_from_the_times(config: str, frames_per_step: int) -> None:
    world = tiny_world(config=config)
    before = world.forward_calls
    row = measure(world, num_sessions=2, num_steps=4)
    assert world.forward_calls - before >= (WARM_UP_STEPS + 4) * world.sampler.num_steps
    each = frames_per_step * 1e3 / row["step_ms"]
    assert row["frames_per_s_each"] == pytest.approx(each)
    assert row["frames_per_s"] == pytest.approx(2 * each)
    assert row["step_ms"] > row["decode_ms"] > 0
    assert row["ratio"] == pytest.approx(row["step_ms"] / row["matmul_ms"])
    assert row["threads"] == 1


def test_products_use_the_threads_of_the_step_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world()
    used: list[int] = []

    def run(_: MatrixProducts) -> float:
        used.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(ThreadPolicy, "threads", lambda _, batch: batch)
    monkeypatch.setattr(ThreadPolicy, "limit", lambda *_: None)
    monkeypatch.setattr(ThreadPolicy, "record", lambda *_: None)
    monkeypatch.setattr(MatrixProducts, "run", run)
    torch.set_num_threads(2)
    try:
        assert [measure(world, num_sessions, 2)["threads"] for num_sessions in (1, 2)] == [1, 2]
    finally:
        torch.set_num_threads(1)
    assert used == [1] * (WARM_UP_STEPS + 2) + [2] * (WARM_UP_STEPS + 2)


def test_every_matrix_product_is_counted_once() -> None:
    config = tiny_world().transformer.config
    x, weight = torch.randn(2, 6, 8), torch.randn(5, 8)
    q = torch.randn(1, 3, 4, 16)
    with MatrixProducts() as products:
        F.linear(x, weight)
        _ = x + 1
        F.conv2d(torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3))
        F.scaled_dot_product_attention(q, q, q)
    assert len(products.calls) == 3
    sizes = [x.numel() + weight.numel() + 60, 3 * 64 + 108 + 4 * 36, 4 * q.numel()]
    assert products.bytes == 4 * sum(sizes)
    assert products.run() > 0
    world = tiny_world()
    rollout = world.start(world.starts[0].frames[None], world.starts[0].actions)
    with MatrixProducts() as products:
        rollout.step_latents(Actions.none(1, 1, 2, 0))
    # a pass: patches, noise level (2), actions (2), modulation, head; a block: qkv, out, two of the feed-forward
    linears = 2 * (7 + 4 * config.num_layers)
    assert len(products.calls) == linears + 3 * config.num_layers, "and an attention for each chunk"


@pytest.mark.parametrize(
    ("x", "shared"),
    [
        (torch.zeros(2, 3, 4), True),
        (torch.zeros(2, 3, 4).transpose(1, 2), True),
        (torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), True),
        (torch.zeros(2, 1, 4).transpose(0, 1), True),
        (torch.zeros(2, 3, 4)[:, :2], False),
        (torch.zeros(2, 1, 4).expand(2, 3, 4), False),
    ],
)
def test_a_product_s_tensors_keep_their_layout_without_gaps(x: torch.Tensor, shared: bool) -> None:
    found = without_gaps(x)
    assert torch.equal(found, x)
    assert (found.data_ptr() == x.data_ptr()) == shared
    assert not shared or found.stride() == x.stride()


def test_the_command_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_world().save(tmp_path / "tiny")
    threads = torch.get_num_threads()
    words = ["bench", "step", "--world", str(tmp_path / "tiny"), "--sessions", "1", "3", "--steps", "2", "--json"]
    assert lightcone.main([*words, "--threads", "1"]) == 0
    torch.set_num_threads(threads)
    report = json.loads(capsys.readouterr().out)
    assert [row["sessions"] for row in report["sessions"]] == [1, 3]
    assert report["world"] == "tiny-pixel"
    assert all(row["step_ms"] > 0 for row in report["sessions"])
    assert report["sessions"][0]["gain"] == 1
