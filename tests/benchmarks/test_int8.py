"""What 8 bit cost, step by step: of the cache and of linear layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.int8 import Int8Linear, measure
from world.testing import tiny_world

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # PyTorch's, of itself


def test_all_ways_take_the_same_steps(tmp_path: Path) -> None:
    tiny_world().save(tmp_path)
    found = measure(str(tmp_path), 2, 8)
    assert found["float32"]["psnr"] == float("inf")
    assert all(found[way]["psnr"] > 20 for way in ("bf16", "int8 cache", "int8 linears"))
    assert len({row["psnr"] for row in found.values()}) == 4, "a way that is another's measures nothing"
    assert found["int8 cache"]["cache_mb"] < found["bf16"]["cache_mb"] < found["float32"]["cache_mb"]


def test_a_layer_in_int8_is_the_layer_but_for_rounding() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(48, 24), torch.randn(2, 5, 48)
    with torch.no_grad():
        error = Int8Linear(linear)(x) - F.linear(x, linear.weight, linear.bias)
    assert 0 < error.abs().max() < 0.05
