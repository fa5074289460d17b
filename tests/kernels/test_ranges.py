"""Attention over several key ranges, against a loop that lists the visible keys of every query."""

import pytest
import torch
from torch import Tensor

from kernels.attention import attention

LQ, LK, BLOCK = 6, 7, 3


def _inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = {"q": LQ, "q_sink": LQ, "k": LK, "v": LK, "own_k": LQ, "own_v": LQ}
    draw = {name: torch.randn(2, n, 3, 8, generator=generator, dtype=torch.float64) for name, n in lengths.items()}
    return {name: tensor.to(dtype) for name, tensor in draw.items()}


def _definition(t: dict[str, Tensor], num_sink: int, mask: Tensor | None, own: bool) -> Tensor:
    t = {name: tensor.double() for name, tensor in t.items()}
    out = torch.zeros_like(t["q"])
    for row in range(LQ):
        seen = [key for key in range(LK) if mask is None or mask[row, key]]
        scores = [
            ((t["q_sink"] if key < num_sink else t["q"])[:, row] * t["k"][:, key]).sum(-1) / 8**0.5 for key in seen
        ]
        values = [t["v"][:, key] for key in seen]
        if own:
            block = range(row // BLOCK * BLOCK, row // BLOCK * BLOCK + BLOCK)
            scores += [(t["q"][:, row] * t["own_k"][:, key]).sum(-1) / 8**0.5 for key in block]
            values += [t["own_v"][:, key] for key in block]
        weights = torch.stack(scores).softmax(0)
        out[:, row] = (weights[..., None] * torch.stack(values)).sum(0)
    return out


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("num_sink", [0, 1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_ranges_share_one_softmax(dtype: torch.dtype, atol: float, num_sink: int, masked: bool, own: bool) -> None:
    t = _inputs(dtype)
    mask = torch.arange(LK)[None] <= torch.arange(LQ)[:, None] if masked else None
    out = attention(
        t["q"],
        t["k"],
        t["v"],
        mask=mask,
        q_sink=t["q_sink"],
        num_sink=num_sink,
        own=(t["own_k"], t["own_v"], BLOCK) if own else None,
    )
    torch.testing.assert_close(out.double(), _definition(t, num_sink, mask, own), atol=atol, rtol=0)


def test_keys_of_another_block_are_not_seen() -> None:
    t = _inputs(torch.float32)
    own = (t["own_k"], t["own_v"].clone(), BLOCK)
    before = attention(t["q"], t["k"], t["v"], own=own)
    own[1][:, :BLOCK] += 1.0
    after = attention(t["q"], t["k"], t["v"], own=own)
    assert torch.equal(after[:, BLOCK:], before[:, BLOCK:])
    assert not torch.allclose(after[:, :BLOCK], before[:, :BLOCK])


def test_gradients_are_those_of_one_softmax() -> None:
    def gradients(by_definition: bool) -> list[Tensor]:
        t = {name: tensor.requires_grad_() for name, tensor in _inputs(torch.float64).items()}
        mask = torch.arange(LK)[None] <= torch.arange(LQ)[:, None]
        if by_definition:
            out = _definition(t, 2, mask, own=True)
        else:
            own = (t["own_k"], t["own_v"], BLOCK)
            out = attention(t["q"], t["k"], t["v"], mask=mask, q_sink=t["q_sink"], num_sink=2, own=own)
        weight = torch.linspace(-1, 1, 8, dtype=torch.float64)
        return list(torch.autograd.grad((out * weight).sum(), list(t.values())))

    for ours, theirs in zip(gradients(False), gradients(True), strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_a_query_may_see_nothing_but_its_own_block() -> None:
    """The first noisy chunk of a clip has no clean chunk before it."""
    t = _inputs(torch.float32)
    own = (t["own_k"], t["own_v"], BLOCK)
    blind = torch.zeros(LQ, LK, dtype=torch.bool)
    expected = torch.cat(
        [attention(t["q"][:, part], t["own_k"][:, part], t["own_v"][:, part]) for part in (slice(0, 3), slice(3, 6))], 1
    )
    torch.testing.assert_close(attention(t["q"], t["k"], t["v"], mask=blind, own=own), expected, atol=2e-6, rtol=0)
    empty = attention(t["q"], t["k"][:, :0], t["v"][:, :0], q_sink=t["q_sink"], num_sink=2, own=own)
    torch.testing.assert_close(empty, expected, atol=2e-6, rtol=0)


def test_a_sink_longer_than_the_keys_is_all_of_them() -> None:
    """The first chunks of a stream are inside the sink."""
    t = _inputs(torch.float32)
    out = attention(t["q"], t["k"], t["v"], q_sink=t["q_sink"], num_sink=LK + 4)
    torch.testing.assert_close(out, attention(t["q_sink"], t["k"], t["v"]), atol=2e-6, rtol=0)


def test_the_sink_s_queries_are_used_for_the_sink_s_keys_only() -> None:
    t = _inputs(torch.float32)
    before = attention(t["q"], t["k"], t["v"], q_sink=t["q_sink"], num_sink=2)
    same = attention(t["q"], t["k"], t["v"], q_sink=t["q"], num_sink=2)
    torch.testing.assert_close(same, attention(t["q"], t["k"], t["v"]), atol=2e-6, rtol=0)
    assert not torch.allclose(before, same)
