"""Norm and rotation of queries and keys, keys and values written to a ring, as they are defined. Owns the meaning."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.norm_rope.reference import norm_rope_reference, rope_reference


def qk_norm_rope_write_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    places: Tensor,
    *,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    sink_cos: Tensor | None = None,
    sink_sin: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor | None]:
    """(query, query for sink keys) `b t h d`; into rows places … places + t of each row's slot go its keys and values.

    q, k, v `b t h d`, raw. q_weight, k_weight: of the RMS norm, `d` (per head), `h d` (over all heads) or None (no
    norm). cos, sin `b t d/2`. keys, values `s l h d`, written in place: in their dtype, or int8 with float32 scales
    `s l h` (largest magnitude / 127). slots, places: integers `b`. sink_cos, sink_sin: of the second query.
    """
    query = _turned(q, q_weight, cos, sin, eps)
    sink = None if sink_cos is None or sink_sin is None else _turned(q, q_weight, sink_cos, sink_sin, eps)
    exact = torch.promote_types(k.dtype, torch.float32)
    turned = _turned(k.to(exact), k_weight, cos, sin, eps)
    rows = places[:, None].long() + torch.arange(k.shape[1], device=k.device)  # b t
    where = slots[:, None].long().expand_as(rows), rows
    for cache, scales, new in ((keys, key_scales, turned), (values, value_scales, v)):
        if scales is None:
            cache[where] = new.to(cache.dtype)
        else:
            cache[where], scales[where] = quantised(new)
    return query, sink


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 of x `… d` and its scale `…`: x ≈ int8·scale, error at most half a scale."""
    x = x.float()
    scale = x.abs().amax(-1) / 127
    return (x / scale.clamp_min(1e-30)[..., None]).round().to(torch.int8), scale


def _turned(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    if weight is None:
        return rope_reference(x, cos, sin)
    return norm_rope_reference(x, weight, cos, sin, eps)
