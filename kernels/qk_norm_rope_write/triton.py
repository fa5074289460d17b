"""Norm, rotation and the write to the ring in one pass. Owns the Triton kernel: one program per token, for all heads.

A head's channels are loaded as pairs, even and odd ones separately, so that a rotation needs no shuffle.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from kernels.interpreter import interpreted, stored


@triton.jit
def _normed(even, odd, weight_ptr, at, inside, width, eps, NORM: tl.constexpr):
    """RMS norm per head ("head") or over all heads ("full")."""
    if NORM != "none":
        square = even * even + odd * odd
        if NORM == "head":
            mean = (tl.sum(square, 1) / width)[:, None]
        else:
            mean = tl.sum(tl.sum(square, 1), 0) / width
        root = tl.rsqrt(mean + eps)
        even = even * root * tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
        odd = odd * root * tl.load(weight_ptr + at + 1, mask=inside, other=0.0).to(tl.float32)
    return even, odd


@triton.jit
def _put(
    cache_ptr, scales_ptr, at, scales_at, even, odd, heads_inside, inside, INT8: tl.constexpr, INTERPRETED: tl.constexpr
):
    """Store a token's heads in the cache's dtype, or as int8 with one scale per head."""
    if INT8:
        largest = tl.maximum(tl.max(tl.abs(even), 1), tl.max(tl.abs(odd), 1))
        scale = largest / 127.0
        tl.store(scales_ptr + scales_at, scale, mask=heads_inside)
        inverse = (1.0 / tl.maximum(scale, 1e-30))[:, None]
        even = tl.floor(even * inverse + 0.5)
        odd = tl.floor(odd * inverse + 0.5)
    tl.store(cache_ptr + at, stored(even, cache_ptr, INTERPRETED), mask=inside)
    tl.store(cache_ptr + at + 1, stored(odd, cache_ptr, INTERPRETED), mask=inside)


@triton.jit
def qk_norm_rope_write_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    sink_cos_ptr,
    sink_sin_ptr,
    query_ptr,
    sink_query_ptr,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    slots_ptr,
    places_ptr,
    tokens,
    heads,
    pairs,
    q_b,
    q_t,
    q_h,
    angle_b,
    angle_t,
    slot_stride,
    row_stride,
    head_stride,
    scale_slot_stride,
    eps,
    NORM: tl.constexpr,
    SINK: tl.constexpr,
    INT8: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    token = row % tokens
    h = tl.arange(0, BLOCK_HEADS)
    p = tl.arange(0, BLOCK_PAIRS)
    inside = (h[:, None] < heads) & (p[None, :] < pairs)
    source = batch * q_b + token * q_t + h[:, None] * q_h + 2 * p[None, :]
    packed = h[:, None] * (2 * pairs) + 2 * p[None, :]
    width = 2 * pairs * (heads if NORM == "full" else 1)
    weights_at = packed if NORM == "full" else (h[:, None] * 0 + 2 * p[None, :])
    angle = batch * angle_b + token * angle_t + p
    cos = tl.load(cos_ptr + angle, mask=p < pairs, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + angle, mask=p < pairs, other=0.0).to(tl.float32)[None, :]

    even = tl.load(q_ptr + source, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(q_ptr + source + 1, mask=inside, other=0.0).to(tl.float32)
    even, odd = _normed(even, odd, q_weight_ptr, weights_at, inside, width, eps, NORM)
    out = row * heads * 2 * pairs + packed
    tl.store(query_ptr + out, stored(even * cos - odd * sin, query_ptr, INTERPRETED), mask=inside)
    tl.store(query_ptr + out + 1, stored(even * sin + odd * cos, query_ptr, INTERPRETED), mask=inside)
    if SINK:
        sink_cos = tl.load(sink_cos_ptr + angle, mask=p < pairs, other=0.0).to(tl.float32)[None, :]
        sink_sin = tl.load(sink_sin_ptr + angle, mask=p < pairs, other=0.0).to(tl.float32)[None, :]
        turned = stored(even * sink_cos - odd * sink_sin, query_ptr, INTERPRETED)
        tl.store(sink_query_ptr + out, turned, mask=inside)
        turned = stored(even * sink_sin + odd * sink_cos, query_ptr, INTERPRETED)
        tl.store(sink_query_ptr + out + 1, turned, mask=inside)

    slot = tl.load(slots_ptr + batch).to(tl.int64)
    place = tl.load(places_ptr + batch).to(tl.int64) + token
    at = slot * slot_stride + place * row_stride + h[:, None] * head_stride + 2 * p[None, :]
    scales_at = slot * scale_slot_stride + place * heads + h
    even = tl.load(k_ptr + source, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(k_ptr + source + 1, mask=inside, other=0.0).to(tl.float32)
    even, odd = _normed(even, odd, k_weight_ptr, weights_at, inside, width, eps, NORM)
    turned_even = even * cos - odd * sin
    turned_odd = even * sin + odd * cos
    _put(keys_ptr, key_scales_ptr, at, scales_at, turned_even, turned_odd, h < heads, inside, INT8, INTERPRETED)
    even = tl.load(v_ptr + source, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(v_ptr + source + 1, mask=inside, other=0.0).to(tl.float32)
    _put(values_ptr, value_scales_ptr, at, scales_at, even, odd, h < heads, inside, INT8, INTERPRETED)


def qk_norm_rope_write_triton(
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
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    sink_cos: Tensor | None = None,
    sink_sin: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Compute `qk_norm_rope_write_reference`; the second result is empty if there is no sink. q, k, v with unequal
    strides are copied, and so are angles; dispatch has checked the layout of the caches."""
    if q.stride() != k.stride() or q.stride() != v.stride() or q.stride(-1) != 1:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    angles = [angle for angle in (cos, sin, sink_cos, sink_sin) if angle is not None]
    if cos.stride(-1) != 1 or any(angle.stride() != cos.stride() for angle in angles):
        cos, sin, *rest = (angle.contiguous() for angle in angles)
        sink_cos, sink_sin = rest or (None, None)
    b, t, heads, dim = q.shape
    query = torch.empty((b, t, heads, dim), dtype=q.dtype, device=q.device)
    sink_query = torch.empty((b, t, heads, dim) if sink_cos is not None else (0,), dtype=q.dtype, device=q.device)
    norm = "none" if q_weight is None else ("head" if q_weight.ndim == 1 else "full")
    qk_norm_rope_write_kernel[(b * t,)](
        q,
        k,
        v,
        q_weight,
        k_weight,
        cos,
        sin,
        sink_cos,
        sink_sin,
        query,
        sink_query,
        keys,
        values,
        key_scales,
        value_scales,
        slots,
        places,
        t,
        heads,
        dim // 2,
        *q.stride()[:3],
        *cos.stride()[:2],
        *keys.stride()[:3],
        0 if key_scales is None else key_scales.stride(0),
        eps,
        NORM=norm,
        SINK=sink_cos is not None,
        INT8=key_scales is not None,
        INTERPRETED=interpreted(q),
        BLOCK_HEADS=triton.next_power_of_2(heads),
        BLOCK_PAIRS=triton.next_power_of_2(dim // 2),
        num_warps=4,
    )
    return query, sink_query
