"""The definition of norm and rotation of queries and keys, and of the write of keys and values to a ring."""

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
    """Return query and query for sink keys, `b t h d`; write each batch row's keys and values into the rows places …
    places + t of its slot.

    q, k, v `b t h d`, raw. q_weight, k_weight: of the RMS norm, `d` (per head), `h d` (over all heads) or None (no
    norm). cos, sin `b t d/2`. keys, values `s l h d`, written in place: in their dtype, or int8 with float32 scales
    `s l h` (largest magnitude / 127). slots, places: integers `b`. sink_cos, sink_sin: the second query's angles.
    """
    query = _rotated(q, q_weight, cos, sin, eps)
    sink = None if sink_cos is None or sink_sin is None else _rotated(q, q_weight, sink_cos, sink_sin, eps)
    exact = torch.promote_types(k.dtype, torch.float32)
    rotated = _rotated(k.to(exact), k_weight, cos, sin, eps)
    rows = places[:, None].long() + torch.arange(k.shape[1], device=k.device)  # b t
    index = slots[:, None].long().expand_as(rows), rows
    for cache, scales, new in ((keys, key_scales, rotated), (values, value_scales, v)):
        if scales is None:
            cache[index] = new.to(cache.dtype)
        else:
            cache[index], scales[index] = quantised(new)
    return query, sink


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise x `… d` to int8 with a scale `…`: x ≈ int8·scale, error at most half a scale."""
    x = x.float()
    scale = x.abs().amax(-1) / 127
    return (x / scale.clamp_min(1e-30)[..., None]).round().to(torch.int8), scale


def _rotated(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    if weight is None:
        return rope_reference(x, cos, sin)
    return norm_rope_reference(x, weight, cos, sin, eps)
