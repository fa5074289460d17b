"""The kernels' floors: bytes and operations counted in a second way, and the output without a GPU."""

import json

import pytest
import torch

from benchmarks.kernels import CHIPS, SHAPES, Chip, Shape, Work, works
from lightcone import main


def test_operations_and_bytes_match_the_tensors() -> None:
    shape = Shape(name="small", sessions=2, frames=3, tokens=6, valid=10, heads=4, dim=8)
    b, t, n, c = 2, 6, 10, 32
    activation, frame, cache = (torch.empty(b, size, c, dtype=torch.bfloat16).nbytes for size in (t, 3, n))
    found = works(shape)
    assert found["norm_modulate"].bytes == 4 * activation + 3 * frame  # x, y in, r, h out; gate, scale, shift
    assert found["qk_norm_rope_write"].bytes == 6 * activation + 2 * torch.empty(b, t, 4).nbytes  # cos and sin
    assert found["ring_attention"].bytes == 2 * activation + 2 * cache
    products = 2 * (b * 4 * t * n * 8) * 2  # q·k and weights·v, a multiplication and an addition each
    assert found["ring_attention"].flops == products
    scales = torch.empty(b, n, 4).nbytes
    assert found["ring_attention, int8"].bytes == 2 * activation + cache + 2 * scales


def test_the_floor_is_the_greater_of_the_two() -> None:
    chip = Chip(flops=100.0, bandwidth=10.0)
    assert Work(flops=200.0, bytes=1.0).floor_ms(chip) == 2000.0
    assert Work(flops=1.0, bytes=50.0).floor_ms(chip) == 5000.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="prints times where there is a GPU")
def test_without_a_gpu_only_floors_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--chip", "A100", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["peak"]["flops"] == CHIPS["A100"].flops
    assert len(report["rows"]) == len(SHAPES) * 4
    assert all(row["kernel_ms"] is None and row["floor_ms"] > 0 for row in report["rows"])
    assert main(["bench", "kernels"]) == 0
    assert "floors of H100" in capsys.readouterr().out
