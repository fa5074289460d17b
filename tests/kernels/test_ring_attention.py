"""Attention over ring slots: the Triton kernel against the definition in float64 at all block edges."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.qk_norm_rope_write.reference import quantised
from kernels.ring_attention import merged, ring_attention
from kernels.ring_attention.blocks import blocks_for, blocks_of
from tests.kernels.checking import DEVICE, DTYPES, assert_as_exact, draw, guarded_triton

BLOCK = blocks_for(torch.device(DEVICE), int8=False).keys
QUERIES = blocks_for(torch.device(DEVICE), int8=False).queries


@dataclass(frozen=True, kw_only=True)
class Case:
    valid: tuple[int, ...] = (5, 9)
    t: int = 4
    heads: int = 3
    dim: int = 16
    length: int = 3 * BLOCK
    num_slots: int = 4
    num_sink: int = 0
    int8: bool = False
    gate: bool = False
    by_head: bool = False
    dtype: torch.dtype = torch.float32

    def arguments(self) -> dict[str, Any]:
        b = len(self.valid)
        q, q_sink = draw(b, self.t, 2, self.heads, self.dim, dtype=self.dtype).unbind(2)
        slots = torch.randperm(self.num_slots, generator=torch.Generator().manual_seed(1))[:b]
        keys, values = (
            draw(self.num_slots, self.length, self.heads, self.dim, seed=seed, dtype=self.dtype) for seed in (2, 3)
        )
        scales: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.int8:
            (keys, key_scales), (values, value_scales) = quantised(keys), quantised(values)
            scales = key_scales, value_scales
        for slot in range(self.num_slots):  # invalid rows must not matter
            first = self.valid[slots.tolist().index(slot)] if slot in slots else 0
            for cache in scales if self.int8 else (keys, values):
                assert cache is not None
                cache[slot, first:] = float("nan")
        if self.by_head:  # views with contiguous rows per head
            keys, values = (cache.transpose(1, 2).contiguous().transpose(1, 2) for cache in (keys, values))
        return {
            "q": q,
            "keys": keys,
            "values": values,
            "slots": slots.to(DEVICE, torch.int32),
            "num_valid": torch.tensor(self.valid, dtype=torch.int32, device=DEVICE),
            "q_sink": q_sink if self.num_sink else None,
            "num_sink": self.num_sink,
            "key_scales": scales[0],
            "value_scales": scales[1],
            "gate": draw(b, self.t, self.heads, seed=4, dtype=self.dtype) if self.gate else None,
        }


def exact(a: dict[str, Any], row: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute one row by PyTorch, in `dtype`: (attended, log-sum-exp)."""
    slot, valid = int(a["slots"][row]), int(a["num_valid"][row])
    k, v = a["keys"][slot, :valid].to(dtype), a["values"][slot, :valid].to(dtype)  # l h d
    if a["key_scales"] is not None:
        k, v = (
            k * a["key_scales"][slot, :valid, :, None].to(dtype),
            v * a["value_scales"][slot, :valid, :, None].to(dtype),
        )
    queries = [a["q"][row]] if a["q_sink"] is None else [a["q_sink"][row], a["q"][row]]
    ranges = [slice(0, valid)] if a["q_sink"] is None else [slice(0, a["num_sink"]), slice(a["num_sink"], valid)]
    scale = a["q"].shape[-1] ** -0.5
    scores = torch.cat(
        [torch.einsum("thd,lhd->htl", q.to(dtype) * scale, k[part]) for q, part in zip(queries, ranges, strict=True)],
        -1,
    )
    out = torch.einsum("htl,lhd->thd", scores.softmax(-1), v)
    if a["gate"] is not None:
        out = out * torch.sigmoid(a["gate"][row].to(dtype))[..., None]
    return out, scores.logsumexp(-1).T


def check(case: Case) -> tuple[Tensor, Tensor]:
    arguments = case.arguments()
    with guarded_triton():
        out, lse = ring_attention(**arguments)
    assert out.dtype is case.dtype
    for row in range(len(case.valid)):
        true, true_lse = exact(arguments, row, torch.float64)
        plain, plain_lse = exact(arguments, row, case.dtype)
        assert_as_exact(out[row], plain, true)
        assert_as_exact(lse[row], plain_lse, true_lse)
    return out, lse


@pytest.mark.parametrize(
    "valid", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK]
)
@pytest.mark.parametrize("int8", [False, True])
def test_every_edge_of_a_block_of_keys(valid: int, int8: bool) -> None:
    check(Case(valid=(valid, 3 * BLOCK + 1 - valid), int8=int8))


@pytest.mark.parametrize("t", [1, QUERIES - 1, QUERIES, QUERIES + 1, 2 * QUERIES + 3])
def test_every_edge_of_a_block_of_queries(t: int) -> None:
    check(Case(t=t, valid=(BLOCK + 3,), gate=True))


@pytest.mark.parametrize("num_sink", [1, BLOCK - 1, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("beyond", [0, 1, BLOCK])
def test_every_edge_of_a_sink(num_sink: int, beyond: int) -> None:
    check(Case(valid=(num_sink + beyond, 2 * BLOCK + 1), num_sink=num_sink, gate=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("int8", "num_sink"), list(itertools.product([False, True], [0, 5])))
def test_the_kernel_s_error_is_at_most_twice_pytorchs(int8: bool, num_sink: int, dtype: torch.dtype) -> None:
    check(Case(valid=(BLOCK + 7, 9, 2 * BLOCK), int8=int8, num_sink=num_sink, gate=True, dtype=dtype))


@pytest.mark.parametrize(("heads", "dim"), [(1, 16), (3, 8), (5, 24), (7, 64), (2, 2)])
def test_odd_heads_and_widths(heads: int, dim: int) -> None:
    check(Case(heads=heads, dim=dim))
    check(Case(heads=heads, dim=dim, int8=True, num_sink=3, gate=True))


@pytest.mark.parametrize("int8", [False, True])
def test_a_cache_with_separated_heads(int8: bool) -> None:
    check(Case(by_head=True, int8=int8, valid=(BLOCK + 7, 9), num_sink=5))


def test_random_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        t, heads, dim, *valid = (
            int(torch.randint(1, high, (), generator=generator)) for high in (40, 5, 40, *(3 * BLOCK,) * 3)
        )
        num_sink = 0 if number % 2 else min(valid) // 2
        check(Case(t=t, heads=heads, dim=dim, valid=tuple(valid), num_sink=num_sink))


def test_scores_far_from_zero_do_not_overflow() -> None:
    arguments = Case(valid=(BLOCK + 3,)).arguments()
    arguments["q"] = arguments["q"] * 200
    with guarded_triton():
        out, _ = ring_attention(**arguments)
    assert_as_exact(out[0], exact(arguments, 0, torch.float32)[0], exact(arguments, 0, torch.float64)[0])


def test_the_order_of_a_slots_rows_does_not_matter() -> None:
    arguments = Case(valid=(BLOCK + 7, 2 * BLOCK)).arguments()
    with guarded_triton():
        before, _ = ring_attention(**arguments)
        for row in range(2):
            slot, valid = int(arguments["slots"][row]), int(arguments["num_valid"][row])
            order = torch.randperm(valid, generator=torch.Generator().manual_seed(5))
            for name in ("keys", "values"):
                arguments[name][slot, :valid] = arguments[name][slot, order]
        after, _ = ring_attention(**arguments)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)


def test_which_slot_a_session_has_does_not_matter() -> None:
    arguments = Case(valid=(BLOCK + 7, 9, 30)).arguments()
    moved = dict(arguments)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(6)).to(DEVICE)  # new index of each slot
    for name in ("keys", "values"):
        moved[name] = torch.empty_like(arguments[name])
        moved[name][order] = arguments[name]
    moved["slots"] = order[arguments["slots"].long()].int()
    with guarded_triton():
        before, after = ring_attention(**arguments)[0], ring_attention(**moved)[0]
    assert torch.equal(before, after)


def test_the_order_of_the_batch_does_not_matter() -> None:
    arguments = Case(valid=(BLOCK + 7, 9, 30)).arguments()
    order = torch.tensor([2, 0, 1], device=DEVICE)
    turned = {**arguments, **{name: arguments[name][order] for name in ("q", "slots", "num_valid")}}
    with guarded_triton():
        assert torch.equal(ring_attention(**turned)[0], ring_attention(**arguments)[0][order])


@pytest.mark.parametrize("half", [1, 7, BLOCK, BLOCK + 1])
def test_merged_halves_equal_the_whole(half: int) -> None:
    arguments = Case(valid=(2 * BLOCK + 5, 2 * BLOCK + 5)).arguments()
    first = {**arguments, "num_valid": torch.full((2,), half, dtype=torch.int32, device=DEVICE)}
    rest = {
        **arguments,
        **{name: arguments[name][:, half:] for name in ("keys", "values")},
        "num_valid": arguments["num_valid"] - half,
    }
    with guarded_triton():
        together, parts = ring_attention(**arguments), [ring_attention(**first), ring_attention(**rest)]
    for ours, expected in zip(merged(parts), together, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=2e-6)


def test_the_definition_is_pytorchs_attention() -> None:
    arguments = Case(valid=(3 * BLOCK, 3 * BLOCK)).arguments()
    out, _ = ring_attention(**arguments)
    k, v = (arguments[name][arguments["slots"].long()].transpose(1, 2) for name in ("keys", "values"))
    expected = F.scaled_dot_product_attention(arguments["q"].transpose(1, 2), k, v).transpose(1, 2)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_the_operation_passes_opcheck() -> None:
    for case in (Case(num_sink=3, gate=True), Case(int8=True)):
        arguments = case.arguments()
        for name in ("keys", "values", "key_scales", "value_scales"):
            if arguments[name] is not None:
                arguments[name] = (
                    arguments[name].nan_to_num() if arguments[name].is_floating_point() else arguments[name]
                )
        torch.library.opcheck(torch.ops.lightcone.ring_attention.default, tuple(arguments.values()))


def test_a_gate_in_another_layout() -> None:
    arguments = Case(gate=True).arguments()
    turned = {**arguments, "gate": arguments["gate"].transpose(1, 2).contiguous().transpose(1, 2)}
    with guarded_triton():
        assert torch.equal(ring_attention(**turned)[0], ring_attention(**arguments)[0])


def test_arguments_that_do_not_fit_are_rejected() -> None:
    arguments = Case().arguments()
    with pytest.raises(ValueError, match="the same layout"):
        ring_attention(**{**arguments, "keys": arguments["keys"].transpose(1, 2).contiguous().transpose(1, 2)})
    for changes in ({"values": draw(4, 1, 3, 16)}, {"slots": torch.zeros(3)}, {"gate": draw(2, 4, 2)}):
        with pytest.raises(ValueError, match="do not fit"):
            ring_attention(**{**arguments, **changes})
    with pytest.raises(ValueError, match="num_sink 3 without q_sink"):
        ring_attention(**{**arguments, "num_sink": 3})


@pytest.mark.parametrize("int8", [False, True])
def test_the_table_has_every_chip(int8: bool) -> None:
    assert blocks_of((9, 0), int8=int8).queries == blocks_of((10, 0), int8=int8).queries == 128
    assert blocks_of((8, 6), int8=int8) == blocks_of((12, 0), int8=int8) == blocks_of((8, 0), int8=int8)
    assert blocks_of((8, 6), int8=True) != blocks_of((8, 6), int8=False)
