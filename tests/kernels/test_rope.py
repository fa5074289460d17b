"""Rotary embedding against its definition and its defining property."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.rope import apply_rope
from kernels.rope.complex import rope_complex
from kernels.rope.reference import rope_reference

IMPLEMENTATIONS = [apply_rope, rope_complex, rope_reference]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2e-2}


def _inputs(dtype: torch.dtype, *, batched: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=generator, dtype=torch.float64).to(dtype)
    angles = 6.3 * torch.rand(*([2] if batched else []), 5, 4, generator=generator, dtype=torch.float64)
    return x, angles.cos(), angles.sin()


def _definition(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair of adjacent channels times its 2 × 2 rotation matrix."""
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
def test_low_precision_is_rounded_once_at_the_end(implementation: Callable[..., Tensor]) -> None:
    x, cos, sin = _inputs(torch.bfloat16)
    wide = implementation(x.float(), cos.float(), sin.float())
    assert torch.equal(implementation(x, cos.float(), sin.float()), wide.bfloat16())


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
def test_gradients_are_the_inverse_rotation(implementation: Callable[..., Tensor]) -> None:
    x, cos, sin = _inputs(torch.float64)
    upstream = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)
    (gradient,) = torch.autograd.grad((implementation(x.requires_grad_(), cos, sin) * upstream).sum(), x)
    torch.testing.assert_close(gradient, _definition(upstream, cos, -sin), atol=1e-14, rtol=0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_slices_of_a_larger_tensor_are_read_rightly(implementation: Callable[..., Tensor]) -> None:
    x, cos, sin = _inputs(torch.float32)
    wide = torch.cat((x[..., :1], x, x[..., :1]), dim=-1)
    torch.testing.assert_close(implementation(wide[..., 1:-1], cos, sin), implementation(x, cos, sin))


def test_angles_that_do_not_fit_are_named() -> None:
    x, cos, _ = _inputs(torch.float32)
    for bad in (cos[:, :4], cos[..., :3], cos[:1].expand(3, -1, -1)):
        with pytest.raises(ValueError, match="apply_rope: x"):
            apply_rope(x, bad, bad)
