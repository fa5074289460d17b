"""Helpers of the kernels' tests: guarded outputs, and the allowed error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.dispatch import through_triton

GUARD = 512
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


@contextmanager
def guarded_triton() -> Iterator[None]:
    """Run Triton kernels inside. Allocations lie between guards and start as NaN; fails if a guard was written to or an
    element was not."""
    buffers: list[tuple[Tensor, Tensor]] = []

    def empty(shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        num = int(torch.tensor(shape).prod())
        buffer = torch.full((num + 2 * GUARD,), float("nan"), dtype=dtype, device=device)
        out = buffer[GUARD : GUARD + num].view(shape)
        buffers.append((buffer, out))
        return out

    with pytest.MonkeyPatch.context() as patch, through_triton():
        patch.setattr(torch, "empty", empty)
        yield
    assert buffers
    for buffer, out in buffers:
        assert not out.isnan().any(), "an element was never written"
        assert buffer[:GUARD].isnan().all(), "written before the output"
        assert buffer[-GUARD:].isnan().all(), "written after the output"


def assert_as_exact(ours: Tensor, eager: Tensor, exact: Tensor) -> None:
    """Assert FlashAttention's rule: an error of at most twice PyTorch's in the same dtype."""
    error, allowed = ((x.double() - exact).abs().max() for x in (ours, eager))
    assert error <= 2 * allowed + 1e-6 * (1 + exact.abs().max()), f"{float(error):.3g}, PyTorch {float(allowed):.3g}"
