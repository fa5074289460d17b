"""Norm and rotation against their definition in float64: values and gradients, both norms, odd shapes."""

import pytest
import torch

from kernels.norm_rope import norm_rope, qk_norm_rope
from kernels.norm_rope.reference import norm_rope_reference


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("b", "length", "heads", "dim"), [(2, 5, 3, 8), (1, 1, 1, 2), (3, 7, 2, 6)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("batched_angles", [False, True])
def test_values_and_gradients_equal_the_definition(
    b: int, length: int, heads: int, dim: int, full: bool, batched_angles: bool
) -> None:
    x, weight = draw(b, length, heads, dim), 1 + 0.3 * draw(*((heads, dim) if full else (dim,)), seed=1)
    angle = draw(*((b,) if batched_angles else ()), length, dim // 2, seed=2)
    seen = draw(b, length, heads, dim, seed=3)
    results = []
    for operation in (norm_rope, norm_rope_reference):
        inputs = x.clone().requires_grad_(True), weight.clone().requires_grad_(True)
        out = operation(inputs[0], inputs[1], angle.cos(), angle.sin(), 1e-6)
        (out * seen).sum().backward()
        with torch.no_grad():  # the path without gradients is a separate one
            torch.testing.assert_close(operation(inputs[0], inputs[1], angle.cos(), angle.sin(), 1e-6), out)
        results.append((out.detach(), inputs[0].grad, inputs[1].grad))
    for ours, definition in zip(*results, strict=True):
        torch.testing.assert_close(ours, definition, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_error_is_at_most_twice_the_definitions(dtype: torch.dtype, gradients: bool) -> None:
    x, weight, angle = draw(2, 9, 3, 16), 1 + 0.3 * draw(16, seed=1), draw(9, 8, seed=2)
    low = x.to(dtype), weight.to(dtype), angle.cos().float(), angle.sin().float()
    exact = norm_rope_reference(low[0].double(), low[1].double(), angle.cos(), angle.sin(), 1e-6)
    with torch.set_grad_enabled(gradients):
        error = (norm_rope(*low).double() - exact).abs().max()
    assert error <= 2 * (norm_rope_reference(*low, 1e-6).double() - exact).abs().max() + 1e-7
    assert norm_rope(*low).dtype is dtype


def test_the_input_is_not_written_to() -> None:
    x = draw(1, 3, 2, 4).float()
    before = x.clone()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            norm_rope(x, torch.ones(4), torch.zeros(3, 2), torch.ones(3, 2))
        assert torch.equal(x, before)


def test_shapes_that_do_not_fit_are_reported() -> None:
    with pytest.raises(ValueError, match=r"weight \(5,\)"):
        norm_rope(torch.zeros(1, 3, 2, 4), torch.ones(5), torch.zeros(3, 2), torch.ones(3, 2))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("batched_angles", [False, True])
def test_joint_queries_and_keys_equal_separate_ones(full: bool, gradients: bool, batched_angles: bool) -> None:
    qkv = draw(2, 5, 3, 4, 8).requires_grad_(gradients)
    weights = [1 + 0.3 * draw(*((4, 8) if full else (8,)), seed=seed) for seed in (1, 2)]
    angle = draw(*((2,) if batched_angles else ()), 5, 4, seed=3)
    with torch.set_grad_enabled(gradients):
        found = qk_norm_rope(qkv[:, :, :2], weights[0], weights[1], angle.cos(), angle.sin())
    for number, ours in enumerate(found):
        expected = norm_rope_reference(qkv[:, :, number], weights[number], angle.cos(), angle.sin(), 1e-6)
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-12)
        assert ours.requires_grad == gradients
