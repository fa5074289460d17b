"""The definition of attention over the valid rows of ring slots."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ring_attention_reference(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    num_valid: Tensor,
    *,
    q_sink: Tensor | None = None,
    num_sink: int = 0,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    gate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return attended values `b t h d` in q's dtype, and the log-sum-exp of the scores, float32 `b t h`.

    q, q_sink `b t h d`; keys, values `s l h d`, of which a batch row sees the first `num_valid` (integers `b`, at
    least 1) rows of its slot (`slots`, integers `b`), in any order (arXiv:1706.03762, eq. 1: a softmax does not depend
    on it). q_sink replaces q for the first `num_sink` of them. Scales `s l h`: of int8 keys and values. gate `b t h`:
    its sigmoid multiplies a head's output. Arithmetic in at least float32.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    k, v = (_rows(cache, scales, slots, dtype) for cache, scales in ((keys, key_scales), (values, value_scales)))
    scores = torch.einsum("bthd,blhd->bthl", q.to(dtype), k)
    if q_sink is not None and num_sink:
        sink = torch.einsum("bthd,blhd->bthl", q_sink.to(dtype), k[:, :num_sink])
        scores = torch.cat([sink, scores[..., num_sink:]], dim=-1)
    seen = torch.arange(k.shape[1], device=q.device) < num_valid[:, None]  # b l
    scores = (scores / math.sqrt(q.shape[-1])).masked_fill(~seen[:, None, None], -math.inf)
    out = torch.einsum("bthl,blhd->bthd", scores.softmax(-1), v.masked_fill(~seen[:, :, None, None], 0))
    if gate is not None:
        out = out * torch.sigmoid(gate.to(dtype))[..., None]
    return out.to(q.dtype), scores.logsumexp(-1).float()


def merged(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join attention over disjoint parts of the keys to attention over all: (attended, log-sum-exp)."""
    weights = torch.stack([lse for _, lse in parts]).softmax(0)  # part b t h
    out = sum(weight[..., None] * part.to(weight.dtype) for weight, (part, _) in zip(weights, parts, strict=True))
    assert isinstance(out, Tensor)
    return out.to(parts[0][0].dtype), torch.stack([lse for _, lse in parts]).logsumexp(0)


def _rows(cache: Tensor, scales: Tensor | None, slots: Tensor, dtype: torch.dtype) -> Tensor:
    rows = cache[slots.long()].to(dtype)
    return rows if scales is None else rows * scales[slots.long()].to(dtype)[..., None]
