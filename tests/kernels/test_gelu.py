"""GELU by a sigmoid against its definition in float64, and when PyTorch's is used."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.gelu import gelu


def _input(dtype: torch.dtype) -> Tensor:
    spread = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64)
    return torch.cat([spread, torch.tensor([0.0, -0.0, 1e-6, -1e-6, 60.0, -60.0])]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_accuracy_equals_pytorchs(dtype: torch.dtype) -> None:
    x = _input(dtype)
    exact = F.gelu(x.double(), approximate="tanh")
    ours, theirs = (gelu(x) - exact).abs().max(), (F.gelu(x, approximate="tanh") - exact).abs().max()
    assert gelu(x).dtype is dtype
    assert ours <= 2 * theirs + torch.finfo(dtype).tiny


def test_the_gradient_is_pytorchs() -> None:
    x = _input(torch.float64).requires_grad_()
    (ours,), (theirs,) = (torch.autograd.grad(f.sum(), x) for f in (gelu(x), F.gelu(x, approximate="tanh")))
    assert torch.equal(ours, theirs)


@torch.no_grad()
def test_the_input_is_not_changed() -> None:
    x = _input(torch.float32)
    before = x.clone()
    gelu(x)
    assert torch.equal(x, before)
