"""Every implementation of attention against the definition in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels.attention as dispatch
from kernels.attention import attention
from kernels.attention.matmul import matmul_attention
from kernels.attention.reference import attention_reference
from kernels.attention.timing import fused

# (b, lq, lk, n, d): one token, odd lengths, more keys than queries, a shipped-world shape
SHAPES = [(1, 1, 1, 1, 2), (2, 5, 7, 3, 6), (1, 17, 33, 2, 8), (2, 48, 624, 4, 64)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def _inputs(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    b, lq, lk, n, d = shape
    generator = torch.Generator().manual_seed(hash(shape) % 1000)
    q, k, v = (torch.randn(b, length, n, d, generator=generator, dtype=torch.float64) for length in (lq, lk, lk))
    return q.to(dtype), k.to(dtype), v.to(dtype)


def _mask(lq: int, lk: int) -> Tensor:
    """Return a mask that is causal from the end, so that every query sees at least its first key."""
    return torch.arange(lk)[None] <= torch.arange(lq)[:, None] + max(lk - lq, 0)


def _definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """A second definition with loops over heads, so that the reference is checked as well."""
    out = torch.zeros_like(q, dtype=torch.float64)
    for b in range(q.shape[0]):
        for n in range(q.shape[2]):
            scores = q[b, :, n].double() @ k[b, :, n].double().T / q.shape[-1] ** 0.5
            weights = scores.exp() if mask is None else scores.exp() * mask
            out[b, :, n] = weights / weights.sum(-1, keepdim=True) @ v[b, :, n].double()
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("implementation", [attention, attention_reference, matmul_attention])
def test_equals_the_definition_in_float64(
    implementation: Callable[..., Tensor], shape: tuple[int, int, int, int, int], dtype: torch.dtype, masked: bool
) -> None:
    q, k, v = _inputs(shape, dtype)
    mask = _mask(shape[1], shape[2]) if masked else None
    out = implementation(q, k, v, mask=mask)
    assert out.dtype is dtype
    assert out.shape == q.shape
    torch.testing.assert_close(out.double(), _definition(q, k, v, mask), atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("implementation", [attention, matmul_attention, fused])
def test_gradients_equal_the_reference(implementation: Callable[..., Tensor]) -> None:
    def gradients(call: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [t.requires_grad_() for t in _inputs((2, 5, 7, 3, 6), torch.float64)]
        weight = torch.linspace(-1, 1, 6, dtype=torch.float64)
        return list(torch.autograd.grad((call(*leaves) * weight).sum(), leaves))

    for ours, theirs in zip(gradients(implementation), gradients(attention_reference), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("implementation", [attention, attention_reference, matmul_attention])
def test_masked_keys_change_nothing_and_visible_ones_do(implementation: Callable[..., Tensor]) -> None:
    q, k, v = _inputs((1, 4, 6, 2, 8), torch.float32)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:, 3] = False
    before = implementation(q, k, v, mask=mask)
    k[:, 3], v[:, 3] = 100.0, 100.0
    assert torch.equal(implementation(q, k, v, mask=mask), before)
    v[:, 2] += 1.0
    assert not torch.allclose(implementation(q, k, v, mask=mask), before)


def test_the_order_of_keys_does_not_matter() -> None:
    q, k, v = _inputs((2, 5, 7, 3, 6), torch.float32)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention(q, k[:, order], v[:, order]), attention(q, k, v), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("amx", "gradients", "dtype", "matmul"),
    [
        (True, False, torch.bfloat16, False),
        (True, True, torch.bfloat16, True),
        (False, False, torch.bfloat16, True),
        (False, False, torch.float32, False),
    ],
)
def test_dispatch_is_by_device_and_dtype(
    monkeypatch: pytest.MonkeyPatch, amx: bool, gradients: bool, dtype: torch.dtype, matmul: bool
) -> None:
    calls = []

    def spy(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(args)
        return matmul_attention(*args, **kwargs)

    monkeypatch.setattr(dispatch, "matmul_attention", spy)
    monkeypatch.setattr(dispatch, "_HAS_AMX", amx)
    q, k, v = _inputs((1, 3, 4, 2, 8), dtype)
    attention(q.requires_grad_(gradients), k, v)
    assert bool(calls) is matmul


def test_autocast_decides_the_dtype_of_the_products() -> None:
    q, k, v = _inputs((1, 3, 4, 2, 8), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(q.requires_grad_(), k, v)
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.double(), _definition(q, k, v, None), atol=3e-2, rtol=0)


def test_shapes_that_do_not_fit_are_reported() -> None:
    q, k, v = _inputs((1, 3, 4, 2, 8), torch.float32)
    with pytest.raises(ValueError, match=r"k \(1, 4, 1, 8\)"):
        attention(q, k[:, :, :1], v[:, :, :1])
    with pytest.raises(ValueError, match=r"mask is torch\.float32"):
        attention(q, k, v, mask=torch.zeros(3, 4))
