"""Attention over several key ranges under one softmax. Owns sinks with re-rotated queries, and block-diagonal keys.

The ranges' scores are concatenated before the softmax, so the result is exactly that of one dense attention.
"""

import math

import torch
from torch import Tensor

OwnBlock = tuple[Tensor, Tensor, int]
"""Keys and values `b lq n d`, and the block size: a query sees only those inside its own block of tokens."""


def ranges_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    q_sink: Tensor | None = None,
    num_sink: int = 0,
    own: OwnBlock | None = None,
) -> Tensor:
    """Attend: q, q_sink `b lq n d`; k, v `b lk n d` -> `b lq n d`. `q_sink` replaces q for the first `num_sink` keys.

    mask: bool `lq lk` over k. own: additional keys and values, seen block by block.
    """
    qh, kh, vh = (t.transpose(1, 2) for t in (q, k, v))  # b n l d
    scale = 1 / math.sqrt(q.shape[-1])
    if q_sink is not None and num_sink:
        sink_scores = (q_sink.transpose(1, 2) * scale) @ kh[:, :, :num_sink].transpose(-1, -2)
        scores = torch.cat([sink_scores, (qh * scale) @ kh[:, :, num_sink:].transpose(-1, -2)], dim=-1)
    else:
        scores = (qh * scale) @ kh.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if own is None:
        return (scores.softmax(-1).to(vh.dtype) @ vh).transpose(1, 2)
    own_k, own_v, block = own
    own_q, own_kb, own_vb = (t.transpose(1, 2).unflatten(2, (-1, block)) for t in (q, own_k, own_v))  # b n c l d
    own_scores = ((own_q * scale) @ own_kb.transpose(-1, -2)).flatten(2, 3)  # b n lq block
    weights = torch.cat([scores, own_scores], dim=-1).softmax(-1).to(vh.dtype)
    shared_weights, own_weights = weights.split([k.shape[1], block], dim=-1)
    out: Tensor = shared_weights @ vh + (own_weights.unflatten(2, (-1, block)) @ own_vb).flatten(2, 3)
    return out.transpose(1, 2)
