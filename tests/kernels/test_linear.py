"""Packed linear layers compute the same as plain ones, keep their parameters, and train as before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels.linear import pack_linears
from kernels.linear.packed import PackedLinear, can_pack

needs_packing = pytest.mark.skipif(not can_pack(), reason="this CPU has no AMX tiles, so nothing is packed")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.Sequential(nn.GELU(), nn.Linear(40, 7, bias=False)))


@needs_packing
@pytest.mark.parametrize("rows", [1, 30, 45, 200])
def test_outputs_equal_those_of_plain_layers(rows: int) -> None:
    plain, packed = network().bfloat16(), network().bfloat16()
    pack_linears(packed, rows=30)
    assert [type(m) for m in packed.modules()].count(PackedLinear) == 2
    x = torch.randn(3, rows, 24).bfloat16()
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x))


def test_parameters_keep_their_names_and_gradients() -> None:
    packed, plain = network().bfloat16(), network().bfloat16()
    pack_linears(packed, rows=30)
    assert list(packed.state_dict()) == list(plain.state_dict())
    for module in (packed, plain):
        module(torch.ones(2, 24).bfloat16()).sum().backward()
    for a, b in zip(packed.parameters(), plain.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_float32_layers_are_not_packed() -> None:
    net = network()
    pack_linears(net, rows=30)
    assert type(net[0]) is nn.Linear
