"""Attention over the valid rows of ring slots, with a mask only in the last block. Owns the Triton kernel.

The running softmax of FlashAttention (arXiv:2205.14135, algorithm 1), in base 2. The slot that a batch row reads and
its number of valid rows come from device tensors, so that one launch, or one captured graph, serves any mix of
sessions.
"""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor
from triton import language as tl

from kernels.interpreter import interpreted, stored
from kernels.ring_attention.blocks import Blocks, blocks_for

LOG2_E = 1 / math.log(2)


@triton.jit
def _over_blocks(
    q,
    total,
    largest,
    attended,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    first,
    last,
    end,
    row_stride,
    heads,
    width,
    INT8: tl.constexpr,
    MASKED: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
):
    """Continue over rows first … last in whole blocks; rows from `end` on are ignored."""
    d = tl.arange(0, BLOCK_D)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        at = n.to(tl.int64)[:, None] * row_stride + d[None, :]
        if MASKED:
            seen = (n < end)[:, None] & (d < width)[None, :]
            k = tl.load(keys_ptr + at, mask=seen, other=0.0)
            v = tl.load(values_ptr + at, mask=seen, other=0.0)
        elif EVEN_D:
            k = tl.load(keys_ptr + at)
            v = tl.load(values_ptr + at)
        else:
            k = tl.load(keys_ptr + at, mask=(d < width)[None, :], other=0.0)
            v = tl.load(values_ptr + at, mask=(d < width)[None, :], other=0.0)
        if INTERPRETED:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision=PRECISION)
        if INT8:
            scores = scores * tl.load(key_scales_ptr + n * heads, mask=n < end, other=0.0)[None, :]
        if MASKED:
            scores = tl.where((n < end)[None, :], scores, float("-inf"))
        now_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.math.exp2(scores - now_largest[:, None])
        kept = tl.math.exp2(largest - now_largest)
        total = total * kept + tl.sum(weights, 1)
        if INT8:
            weights = weights * tl.load(value_scales_ptr + n * heads, mask=n < end, other=0.0)[None, :]
        attended = attended * kept[:, None]
        attended = tl.dot(weights.to(q.dtype), v.to(q.dtype), attended, input_precision=PRECISION)
        largest = now_largest
    return total, largest, attended


@triton.jit
def _scaled(q_ptr, at, inside, scale, INTERPRETED: tl.constexpr):
    """Return queries times the softmax's scale, in their dtype."""
    q = tl.load(q_ptr + at, mask=inside, other=0.0)
    if INTERPRETED:
        return q.to(tl.float32) * scale
    return (q.to(tl.float32) * scale).to(q.dtype)


@triton.jit
def ring_attention_kernel(
    q_ptr,
    q_sink_ptr,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    gate_ptr,
    out_ptr,
    lse_ptr,
    slots_ptr,
    num_valid_ptr,
    num_sink,
    tokens,
    heads,
    width,
    q_b,
    q_t,
    q_h,
    gate_b,
    gate_t,
    slot_stride,
    row_stride,
    head_stride,
    scale_slot_stride,
    scale,
    SINK: tl.constexpr,
    INT8: tl.constexpr,
    GATE: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
):
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    inside = (m < tokens)[:, None] & (d < width)[None, :]
    at = batch * q_b + m.to(tl.int64)[:, None] * q_t + head * q_h + d[None, :]
    slot = tl.load(slots_ptr + batch).to(tl.int64)
    valid = tl.load(num_valid_ptr + batch)
    keys_ptr += slot * slot_stride + head * head_stride
    values_ptr += slot * slot_stride + head * head_stride
    if INT8:
        key_scales_ptr += slot * scale_slot_stride + head
        value_scales_ptr += slot * scale_slot_stride + head

    total = tl.zeros([BLOCK_M], tl.float32)
    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    attended = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for part in tl.static_range(0 if SINK else 1, 2):
        # part 0: the sink, with its own queries; part 1: all other valid rows
        if part == 0:
            q = _scaled(q_sink_ptr, at, inside, scale, INTERPRETED)
            first = valid * 0
            end = tl.minimum(num_sink, valid)
        else:
            q = _scaled(q_ptr, at, inside, scale, INTERPRETED)
            first = tl.minimum(num_sink, valid) if SINK else valid * 0
            end = valid
        whole = first + (end - first) // BLOCK_N * BLOCK_N
        total, largest, attended = _over_blocks(
            q, total, largest, attended, keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr,
            first, whole, end, row_stride, heads, width,
            INT8, False, INTERPRETED, PRECISION, BLOCK_N, BLOCK_D, EVEN_D,
        )  # fmt: skip
        total, largest, attended = _over_blocks(
            q, total, largest, attended, keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr,
            whole, end, end, row_stride, heads, width,
            INT8, True, INTERPRETED, PRECISION, BLOCK_N, BLOCK_D, EVEN_D,
        )  # fmt: skip

    attended = attended / total[:, None]
    if GATE:
        gate = tl.load(gate_ptr + batch * gate_b + m * gate_t + head, mask=m < tokens, other=0.0).to(tl.float32)
        attended = attended * tl.sigmoid(gate)[:, None]
    rows = (batch * tokens + m) * heads + head
    tl.store(out_ptr + rows[:, None] * width + d[None, :], stored(attended, out_ptr, INTERPRETED), mask=inside)
    tl.store(lse_ptr + rows, (largest + tl.math.log2(total)) * 0.6931471805599453, mask=m < tokens)


def ring_attention_triton(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    num_valid: Tensor,
    q_sink: Tensor | None = None,
    num_sink: int = 0,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    gate: Tensor | None = None,
    blocks: Blocks | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute `ring_attention_reference`; dispatch has checked the caches' layout. blocks: override this chip's."""
    if q.stride(-1) != 1 or (q_sink is not None and q_sink.stride() != q.stride()):
        q, q_sink = q.contiguous(), None if q_sink is None else q_sink.contiguous()
    if q_sink is None:
        num_sink = 0
    if gate is not None and gate.stride(-1) != 1:
        gate = gate.contiguous()
    b, t, heads, dim = q.shape
    blocks = blocks or blocks_for(q.device, int8=key_scales is not None)
    out = torch.empty((b, t, heads, dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((b, t, heads), dtype=torch.float32, device=q.device)
    width = max(16, triton.next_power_of_2(dim))
    ring_attention_kernel[(triton.cdiv(t, blocks.queries), heads, b)](
        q,
        q_sink,
        keys,
        values,
        key_scales,
        value_scales,
        gate,
        out,
        lse,
        slots,
        num_valid,
        num_sink,
        t,
        heads,
        dim,
        *q.stride()[:3],
        *((0, 0) if gate is None else gate.stride()[:2]),
        *keys.stride()[:3],
        0 if key_scales is None else key_scales.stride(0),
        LOG2_E / math.sqrt(dim),
        SINK=num_sink > 0,
        INT8=key_scales is not None,
        GATE=gate is not None,
        INTERPRETED=interpreted(q),
        PRECISION="ieee" if q.dtype is torch.float32 else "tf32",
        BLOCK_M=blocks.queries,
        BLOCK_N=blocks.keys,
        BLOCK_D=width,
        EVEN_D=width == dim,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out, lse
