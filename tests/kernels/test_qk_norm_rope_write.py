"""Norm, rotation and write to the ring: the kernel against the definition in float64; nothing else is written."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.norm_rope.reference import rope_reference
from kernels.qk_norm_rope_write import qk_norm_rope_write
from kernels.qk_norm_rope_write.reference import quantised
from tests.kernels.checking import DEVICE, DTYPES, assert_as_exact, draw, guarded_triton

UNTOUCHED = 77.0


@dataclass(frozen=True, kw_only=True)
class Case:
    b: int = 2
    t: int = 3
    heads: int = 3
    dim: int = 8
    num_slots: int = 4
    length: int = 11
    norm: str = "head"
    sink: bool = False
    int8: bool = False
    dtype: torch.dtype = torch.float32
    places: tuple[int, ...] | None = None
    by_head: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return the named tensors of a call; the caches hold a value that any write changes."""
        q, k, v = draw(self.b, self.t, 3, self.heads, self.dim, dtype=self.dtype).unbind(2)
        weight = {"none": None, "head": (self.dim,), "full": (self.heads, self.dim)}[self.norm]
        angle = 3 * draw(self.b, self.t, self.dim // 2, seed=2)
        generator = torch.Generator().manual_seed(3)
        places = self.places or torch.randint(self.length - self.t + 1, (self.b,), generator=generator).tolist()
        cache = torch.full(
            (self.num_slots, self.length, self.heads, self.dim),
            UNTOUCHED,
            dtype=torch.int8 if self.int8 else self.dtype,
            device=DEVICE,
        )
        if self.by_head:  # a view with contiguous rows per head
            cache = cache.transpose(1, 2).contiguous().transpose(1, 2)
        scales = torch.full(cache.shape[:3], UNTOUCHED, device=DEVICE) if self.int8 else None
        return {
            "q": q,
            "k": k,
            "v": v,
            "q_weight": None if weight is None else 1 + 0.3 * draw(*weight, seed=4, dtype=self.dtype),
            "k_weight": None if weight is None else 1 + 0.3 * draw(*weight, seed=5, dtype=self.dtype),
            "cos": angle.cos(),
            "sin": angle.sin(),
            "keys": cache,
            "values": cache.clone(memory_format=torch.preserve_format),
            "slots": torch.randperm(self.num_slots, generator=generator)[: self.b].to(DEVICE, torch.int32),
            "places": torch.tensor(places, dtype=torch.int32, device=DEVICE),
            "key_scales": scales,
            "value_scales": None if scales is None else scales.clone(),
            "sink_cos": (angle / 2).cos() if self.sink else None,
            "sink_sin": (angle / 2).sin() if self.sink else None,
        }


def exact(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the same call on float64 copies, caches included."""
    found = {}
    for name, value in arguments.items():
        small = name in ("slots", "places") or value is None
        found[name] = value if small else value.clone().double()
    found["key_scales"] = found["value_scales"] = None
    return found


def eager(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
    """The naive form: every step in the tensors' dtype."""
    if weight is not None:
        dims = tuple(range(-weight.ndim, 0))
        x = x * torch.rsqrt(x.square().mean(dims, keepdim=True) + 1e-6) * weight
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos.to(x.dtype).unsqueeze(-2), sin.to(x.dtype).unsqueeze(-2)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def check(case: Case) -> None:
    arguments = case.arguments()
    true = exact(arguments)
    before = {name: arguments[name].clone() for name in ("keys", "values")}
    true_query, true_sink = qk_norm_rope_write(**true)
    with guarded_triton():
        query, sink = qk_norm_rope_write(**arguments)
    a = arguments
    assert_as_exact(query, eager(a["q"], a["q_weight"], a["cos"], a["sin"]), true_query)
    assert (sink is None) == (not case.sink)
    if sink is not None and true_sink is not None:
        assert_as_exact(sink, eager(a["q"], a["q_weight"], a["sink_cos"], a["sink_sin"]), true_sink)
    plain = {"keys": eager(a["k"], a["k_weight"], a["cos"], a["sin"]), "values": a["v"]}
    written = torch.zeros(case.num_slots, case.length, dtype=torch.bool, device=DEVICE)
    for row in range(case.b):
        start = int(a["places"][row])
        rows = int(a["slots"][row]), slice(start, start + case.t)
        written[rows] = True
        for name, new in plain.items():
            if case.int8:
                scales = a[f"{name[:-1]}_scales"][rows]
                largest = true[name][rows].abs().amax(-1)
                torch.testing.assert_close(scales.double(), largest / 127, rtol=2e-2, atol=1e-6)
                error = (a[name][rows].double() * scales[..., None].double() - true[name][rows]).abs()
                rounding = 2 * (new[row].double() - true[name][rows]).abs().max()
                assert (error <= 0.51 * scales[..., None] + rounding + 1e-6).all()
                assert a[name][rows].abs().amax() == 127
            else:
                assert_as_exact(a[name][rows], new[row], true[name][rows])
    for name, old in before.items():
        assert torch.equal(a[name][~written], old[~written]), "another row was written to"
        if case.int8:
            assert (a[f"{name[:-1]}_scales"][~written] == UNTOUCHED).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", ["none", "head", "full"])
@pytest.mark.parametrize("int8", [False, True])
def test_the_kernel_s_error_is_at_most_twice_pytorchs(norm: str, int8: bool, dtype: torch.dtype) -> None:
    check(Case(norm=norm, int8=int8, dtype=dtype, sink=True))


@pytest.mark.parametrize(("b", "t", "heads", "dim"), [(1, 1, 1, 2), (3, 5, 4, 6), (2, 2, 5, 16), (1, 4, 7, 10)])
@pytest.mark.parametrize("norm", ["head", "full"])
def test_odd_shapes(b: int, t: int, heads: int, dim: int, norm: str) -> None:
    check(Case(b=b, t=t, heads=heads, dim=dim, norm=norm))
    check(Case(b=b, t=t, heads=heads, dim=dim, norm=norm, int8=True, sink=True))


@pytest.mark.parametrize("int8", [False, True])
def test_a_cache_with_separated_heads(int8: bool) -> None:
    check(Case(by_head=True, int8=int8))


@pytest.mark.parametrize("position", range(9))
def test_every_ring_position(position: int) -> None:
    check(Case(places=(position, 8 - position)))


def test_random_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        b, t, heads, pairs = (int(torch.randint(1, high, (), generator=generator)) for high in (5, 8, 6, 12))
        check(Case(b=b, t=t, heads=heads, dim=2 * pairs, norm="head" if number % 2 else "full", sink=number % 3 == 0))


def test_angles_in_other_layouts() -> None:
    arguments = Case(sink=True).arguments()
    for name in ("sin", "sink_cos"):
        arguments[name] = arguments[name].transpose(0, 2).contiguous().transpose(0, 2)
    with guarded_triton():
        query, sink = qk_norm_rope_write(**arguments)
    expected = qk_norm_rope_write(**exact(arguments))
    torch.testing.assert_close(query.double(), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sink.double() if sink is not None else None, expected[1], atol=1e-5, rtol=1e-5)


def test_caches_in_two_layouts_are_rejected() -> None:
    arguments = Case().arguments()
    arguments["values"] = arguments["values"].transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(ValueError, match="the same layout"):
        qk_norm_rope_write(**arguments)


def test_int8_halves_are_rounded_to_the_nearest() -> None:
    x = draw(5, 64, seed=6)
    values, scale = quantised(x)
    assert ((values * scale[:, None] - x).abs() <= 0.5001 * scale[:, None]).all()
    assert quantised(torch.zeros(1, 4))[0].abs().max() == 0


def test_zero_rows_stay_zero() -> None:
    arguments = Case(int8=True).arguments()
    for name in ("k", "v"):
        arguments[name] = torch.zeros_like(arguments[name])
    with guarded_triton():
        qk_norm_rope_write(**arguments)
    slot, place = int(arguments["slots"][0]), int(arguments["places"][0])
    assert not arguments["keys"][slot, place].any()
    assert not arguments["key_scales"][slot, place].any()


def test_the_operation_passes_opcheck() -> None:
    for case in (Case(sink=True), Case(int8=True, norm="none")):
        order = (
            *("q", "k", "v", "q_weight", "k_weight", "cos", "sin", "keys", "values", "slots", "places"),
            *("key_scales", "value_scales", "sink_cos", "sink_sin"),
        )
        arguments = case.arguments()
        torch.library.opcheck(
            torch.ops.lightcone.qk_norm_rope_write.default, (*(arguments[name] for name in order), 1e-6)
        )


def test_the_definitions_rotation_equals_the_models() -> None:
    arguments = Case(norm="none").arguments()
    query, _ = qk_norm_rope_write(**arguments)
    torch.testing.assert_close(query, rope_reference(arguments["q"], arguments["cos"], arguments["sin"]))


@pytest.mark.parametrize(
    "changes",
    [{"k": draw(2, 4, 3, 8)}, {"cos": draw(2, 3, 3)}, {"places": torch.zeros(3)}, {"k_weight": None}],
)
def test_arguments_that_do_not_fit_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        qk_norm_rope_write(**Case().arguments() | changes)
    with pytest.raises(ValueError, match="scales"):
        qk_norm_rope_write(**Case(int8=True).arguments() | {"value_scales": None})
