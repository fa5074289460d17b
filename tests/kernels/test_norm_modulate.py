"""Gated residual, norm and modulation: the Triton kernel against the definition in float64, gradients, and errors."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.norm_modulate import norm_modulate
from kernels.norm_modulate.reference import norm_modulate_reference
from tests.kernels.checking import DEVICE, DTYPES, assert_as_exact, draw, guarded_triton

PARTS = ("y", "gate", "scale", "shift", "weight", "bias")


def given(b: int, t: int, f: int, c: int, dtype: torch.dtype, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    modulation = draw(b, f, 6, c, seed=1, dtype=dtype).unbind(2)  # non-contiguous views, as in the model
    every = {
        "x": draw(b, t, c, dtype=dtype),
        "y": draw(b, t, c, seed=2, dtype=dtype),
        "gate": modulation[0],
        "scale": modulation[1],
        "shift": modulation[4],
        "weight": draw(c, seed=3, dtype=dtype),
        "bias": draw(c, seed=4, dtype=dtype),
    }
    return {name: value for name, value in every.items() if name not in without}


def called(parts: dict[str, Tensor], kind: str) -> tuple[Tensor, Tensor]:
    named: dict[str, Any] = {name: parts.get(name) for name in ("y", "gate", "weight", "bias")}
    return norm_modulate(parts["x"], parts.get("scale"), parts.get("shift"), kind=kind, **named)


def defined(parts: dict[str, Tensor], kind: str) -> tuple[Tensor, Tensor]:
    """Compute the definition in float64."""
    exact = {name: value.double() for name, value in parts.items()}
    named: dict[str, Any] = {name: exact.get(name) for name in ("y", "gate", "weight", "bias")}
    return norm_modulate_reference(exact["x"], exact.get("scale"), exact.get("shift"), kind=kind, **named)


def check(parts: dict[str, Tensor], kind: str) -> None:
    with guarded_triton():
        ours = called(parts, kind)
    for one, plain, true in zip(ours, called(parts, kind), defined(parts, kind), strict=True):
        assert one.dtype is parts["x"].dtype
        assert_as_exact(one, plain, true)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize(
    ("b", "t", "f", "c"), [(1, 1, 1, 1), (2, 6, 3, 5), (3, 4, 4, 16), (1, 9, 1, 33), (2, 8, 2, 64)]
)
def test_the_kernel_s_error_is_at_most_twice_pytorchs(
    b: int, t: int, f: int, c: int, kind: str, dtype: torch.dtype
) -> None:
    check(given(b, t, f, c, dtype), kind)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("without", [(part,) for part in PARTS if part != "y"] + [("y", "gate"), PARTS])
def test_parts_may_be_left_out(without: tuple[str, ...], kind: str) -> None:
    check(given(2, 6, 3, 20, torch.float32, without), kind)


def test_random_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        b, f, n, c = (int(torch.randint(1, high, (), generator=generator)) for high in (4, 5, 5, 70))
        check(given(b, f * n, f, c, torch.float32), "layer")


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("without", [(), *[(part,) for part in PARTS if part != "y"], ("y", "gate"), PARTS])
def test_pytorchs_operations_equal_the_definition(without: tuple[str, ...], kind: str) -> None:
    parts = {name: value.double() for name, value in given(2, 6, 3, 20, torch.float32, without).items()}
    for ours, true in zip(called(parts, kind), defined(parts, kind), strict=True):
        torch.testing.assert_close(ours, true, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_the_gradient_equals_the_definitions(kind: str) -> None:
    parts = {n: v.double().detach().requires_grad_(True) for n, v in given(2, 4, 2, 3, torch.float32).items()}
    for operation in (norm_modulate, norm_modulate_reference):
        assert torch.autograd.gradcheck(
            lambda x, y, gate, scale, shift, weight, bias, operation=operation: operation(
                x, scale, shift, y=y, gate=gate, weight=weight, bias=bias, kind=kind
            ),
            tuple(parts.values()),
        )


def test_the_kernel_is_not_used_with_gradients() -> None:
    parts = given(1, 4, 2, 8, torch.float32)
    parts["x"].requires_grad_(True)
    with pytest.raises(AssertionError), guarded_triton():  # no kernel allocated anything
        called(parts, "layer")[1].sum().backward()
    assert parts["x"].grad is not None


def test_the_operation_passes_opcheck() -> None:
    parts = given(2, 6, 3, 20, torch.float32)
    every = (parts["x"], *(parts[name] for name in ("scale", "shift", "y", "gate", "weight", "bias")), "layer", 1e-6)
    torch.library.opcheck(torch.ops.lightcone.norm_modulate.default, every)
    few = (parts["x"], None, None, None, None, None, None, "rms", 1e-6)
    torch.library.opcheck(torch.ops.lightcone.norm_modulate.default, few)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scale": draw(2, 4, 20)}, "do not fit"),
        ({"y": draw(2, 5, 20)}, "do not fit"),
        ({"weight": draw(19)}, "do not fit"),
        ({"y": None}, "gate without y"),
    ],
)
def test_arguments_that_do_not_fit_are_rejected(changes: dict[str, Tensor | None], says: str) -> None:
    parts = {**given(2, 6, 3, 20, torch.float32), **changes}
    with pytest.raises(ValueError, match=says):
        called({name: value for name, value in parts.items() if value is not None}, "layer")
    with pytest.raises(ValueError, match="'batch'"):
        norm_modulate(torch.zeros(1, 1, 1, device=DEVICE), None, None, kind="batch")
