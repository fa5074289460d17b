"""The cost of 8 bits in the cache and in linear layers, step by step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.int8 import Int8Linear, measure
from world.testing import tiny_world

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning"
)  # PyTorch's about its own code


def test_all_ways_take_the_same_steps(tmp_path: Path) -> None:
    tiny_world().save(tmp_path)
    found = measure(str(tmp_path), 2, 8)
    assert found["float32"]["psnr"] == float("inf")
    assert all(found[way]["psnr"] > 20 for way in ("bf16", "int8 cache", "int8 linears"))
    assert len({row["psnr"] for row in found.values()}) == 4, "two equal ways would measure nothing"
    assert found["int8 cache"]["cache_mb"] < found["bf16"]["cache_mb"] < found["float32"]["cache_mb"]


def test_an_int8_layer_equals_the_layer_up_to_rounding() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(48, 24), torch.randn(2, 5, 48)
    with torch.no_grad():
        error = Int8Linear(linear)(x) - F.linear(x, linear.weight, linear.bias)
    assert 0 < error.abs().max() < 0.05
