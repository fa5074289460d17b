"""Writing and attending in one call: the machine code against the definition in float64 at all block edges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.dispatch import KernelChoice
from kernels.write_attend import applies, native, write_attend
from kernels.write_attend.reference import write_attend_reference
from tests.kernels.checking import assert_as_exact, draw
from world.runtime.native_attention import load_native_attention, make_native_attention

pytestmark = pytest.mark.skipif(not native.can_build(), reason="needs a CPU with AVX512-BF16, and g++")


@pytest.fixture(scope="module", autouse=True)
def machine_code() -> None:
    """Compile the library into the tests' cache, where the tests of rollouts find it."""
    assert make_native_attention(torch.bfloat16)
    assert load_native_attention()


NATIVE = KernelChoice(native_attention=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """first: ring position of each slot's first chunk. by_head: contiguous tokens per head, as packages return them."""

    slots: tuple[int, ...] = (0,)
    first: tuple[int, ...] = (1,)
    chunks: int = 2
    chunk_frames: int = 1
    ring_chunks: int = 4
    tokens: int = 5
    heads: int = 3
    dim: int = 64
    num_sink: int = 0
    by_head: bool = True
    num_slots: int = 3

    def arguments(self) -> dict[str, Any]:
        b, length = len(self.slots), self.chunks * self.chunk_frames * self.tokens
        layout = (4, b, self.heads, length, self.dim) if self.by_head else (b, length, 4, self.heads, self.dim)
        drawn = draw(*layout, dtype=torch.bfloat16)
        q, k, v, q_sink = drawn.transpose(2, 3).unbind(0) if self.by_head else drawn.unbind(2)
        frames = self.ring_chunks * self.chunk_frames
        cache = (self.num_slots, self.heads, frames, self.tokens, self.dim)
        keys, values = (draw(*cache, seed=seed, dtype=torch.bfloat16) for seed in (1, 2))
        for slot in set(range(self.num_slots)) - set(self.slots):  # other slots must not matter
            keys[slot] = values[slot] = float("nan")
        heads = torch.tensor(self.slots)[:, None] * self.heads + torch.arange(self.heads)  # b n
        rows = []
        for number in range(self.chunks):
            position = (torch.tensor(self.first) + number) % self.ring_chunks * self.chunk_frames
            in_slot = position[:, None, None] + torch.arange(self.chunk_frames)
            rows.append((heads[:, :, None] * frames + in_slot).flatten())
        sink = {"q_sink": q_sink, "num_sink": self.num_sink} if self.num_sink else {}
        return {"q": q, "k": k, "v": v, "keys": keys, "values": values, "rows": rows, **sink}


def _in(dtype: torch.dtype, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.to(dtype, copy=True) if isinstance(value, Tensor) else value for name, value in arguments.items()
    }


def check(case: Case) -> Tensor:
    """Check the call and return the attended values."""
    arguments = case.arguments()
    assert applies(arguments["q"], arguments["keys"], NATIVE)
    exact, eager = _in(torch.float64, arguments), _in(torch.bfloat16, arguments)
    ours = write_attend(**arguments)
    expected = write_attend_reference(**exact)
    assert_as_exact(ours, write_attend_reference(**eager), expected)
    for name in ("keys", "values"):
        written = torch.equal(arguments[name].double().nan_to_num(7.0), exact[name].nan_to_num(7.0))
        assert written, f"{name}: written to other rows, or changed"
    return ours


BLOCK = 16


@pytest.mark.parametrize("tokens", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 30, 2 * BLOCK])
@pytest.mark.parametrize("ring_chunks", [1, 3, 4])
@pytest.mark.parametrize("heads", [1, 2])
def test_numbers_of_tokens(tokens: int, ring_chunks: int, heads: int) -> None:
    check(Case(tokens=tokens, ring_chunks=ring_chunks, first=(0,), chunks=min(2, ring_chunks), heads=heads))


@pytest.mark.parametrize("dim", [32, 64, 96, 128])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("by_head", [False, True])
def test_heads_and_layouts(dim: int, heads: int, *, by_head: bool) -> None:
    check(Case(dim=dim, heads=heads, by_head=by_head))


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("chunk_frames", [1, 2])
def test_every_ring_position(first: int, chunk_frames: int) -> None:
    check(Case(first=(first,), chunk_frames=chunk_frames))


@pytest.mark.parametrize("num_sink", [1, BLOCK - 1, BLOCK, BLOCK + 1, 19, 20])
@pytest.mark.parametrize("by_head", [False, True])
def test_sinks_use_their_own_queries(num_sink: int, *, by_head: bool) -> None:
    case = Case(num_sink=num_sink, by_head=by_head)
    assert not torch.equal(check(case), check(replace(case, num_sink=0)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_slots_that_are_not_adjacent(threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        both = check(Case(slots=(2, 0), first=(3, 1), tokens=20))
    finally:
        torch.set_num_threads(1)
    again = Case(slots=(2, 0), first=(3, 1), tokens=20).arguments()
    order = {name: again[name].flip(0) for name in ("q", "k", "v")}
    rows = [row.view(2, -1).flip(0).flatten() for row in again["rows"]]
    assert torch.equal(write_attend(**{**again, **order, "rows": rows}), both.flip(0)), (
        "the other rows of the batch matter"
    )


def test_large_scores_do_not_overflow() -> None:
    arguments = Case().arguments()
    arguments["q"] = arguments["q"] * 60
    expected = write_attend_reference(**_in(torch.float64, arguments))
    eager = write_attend_reference(**_in(torch.bfloat16, arguments))
    assert_as_exact(write_attend(**arguments), eager, expected)


def test_the_operation_is_registered_as_it_behaves() -> None:
    arguments = Case(num_sink=3).arguments()
    operation = torch.ops.lightcone_avx512.write_attend.default
    torch.library.opcheck(operation, tuple(arguments.values()))


def test_arguments_that_do_not_fit_are_rejected() -> None:
    arguments = Case().arguments()
    before = arguments["keys"].clone()
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {"q": arguments["q"].float()}),
        (ValueError, {"v": arguments["v"][:, :-1]}),
        (ValueError, {"keys": arguments["keys"].transpose(0, 1)}),
        (ValueError, {"values": arguments["values"].float()}),
        (ValueError, {"rows": []}),
        (ValueError, {"rows": [row.int() for row in arguments["rows"]]}),
        (ValueError, {"rows": [row[:-1] for row in arguments["rows"]]}),
        (ValueError, {"num_sink": 21}),
        (IndexError, {"rows": [row + 100 for row in arguments["rows"]]}),
        (IndexError, {"rows": [row - 100 for row in arguments["rows"]]}),
    ]
    for error, changed in wrong:
        with pytest.raises(error, match="write_attend"):
            write_attend(**{**arguments, **changed})
    assert torch.equal(arguments["keys"][0], before[0])


def test_when_it_applies() -> None:
    arguments = Case().arguments()
    q, keys = arguments["q"], arguments["keys"]
    assert applies(q, keys, NATIVE)
    assert not applies(q.float(), keys.float(), NATIVE)
    assert not applies(q, keys.to(torch.int8), NATIVE)
    assert not applies(q[..., :16], keys[..., :16], NATIVE)
    assert not applies(q, keys, KernelChoice())
    assert applies(q, keys, NATIVE)


def test_a_compiler_that_fails_is_quoted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main() { return nothing; }")
    monkeypatch.setattr(native, "SOURCE", broken)
    with pytest.raises(RuntimeError, match="nothing"):
        native.build(tmp_path / "broken.so")
    assert list(tmp_path.iterdir()) == [broken]
