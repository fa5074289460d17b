"""Rotary embedding against its definition and its defining property."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.norm_rope import norm_rope
from kernels.norm_rope.reference import rope_reference


def rotation_of_norm_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the operation to inputs of unit root mean square, which the norm does not change."""
    return norm_rope(x, torch.ones(x.shape[-1], dtype=x.dtype), cos, sin, 0.0)


IMPLEMENTATIONS = [rope_reference, rotation_of_norm_rope]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2e-2}


def _inputs(dtype: torch.dtype, *, batched: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=generator, dtype=torch.float64)
    x = (x / x.square().mean(-1, keepdim=True).sqrt()).to(dtype)
    angles = 6.3 * torch.rand(*([2] if batched else []), 5, 4, generator=generator, dtype=torch.float64)
    return x, angles.cos(), angles.sin()


def _definition(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Multiply each pair of adjacent channels by its 2 × 2 rotation matrix."""
    matrix = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)  # [b] l d/2 2 2
    pairs = x.double().unflatten(-1, (-1, 2))
    return torch.einsum("blpij,blnpj->blnpi", matrix.expand(x.shape[0], -1, -1, -1, -1), pairs).flatten(-2)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_the_rotation_matrix(implementation: Callable[..., Tensor], dtype: torch.dtype, batched: bool) -> None:
    x, cos, sin = _inputs(dtype, batched=batched)
    out = implementation(x, cos, sin)
    assert out.dtype is dtype
    assert out.shape == x.shape
    torch.testing.assert_close(out.double(), _definition(x, cos, sin), atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_products_depend_on_the_distance_only(implementation: Callable[..., Tensor]) -> None:
    x, _, _ = _inputs(torch.float64)
    frequencies = torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=torch.float64)

    def at(position: float) -> Tensor:
        angles = (position + torch.arange(5)).double()[:, None] * frequencies
        return implementation(x, angles.cos(), angles.sin())

    def products(position: float) -> Tensor:
        return torch.einsum("bqnd,bknd->bnqk", at(position), at(position))

    torch.testing.assert_close(products(0.0), products(1000.0), atol=1e-10, rtol=0)
    assert not torch.allclose(at(0.0), at(1000.0))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_slices_of_a_larger_tensor_are_read_correctly(implementation: Callable[..., Tensor]) -> None:
    x, cos, sin = _inputs(torch.float32)
    wide = torch.cat((x[..., :1], x, x[..., :1]), dim=-1)
    torch.testing.assert_close(implementation(wide[..., 1:-1], cos, sin), implementation(x, cos, sin))
