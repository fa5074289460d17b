"""Gated residual, norm and modulation in one pass over memory. Owns the Triton kernel: one program per token."""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from kernels.interpreter import interpreted, stored


@triton.jit
def norm_modulate_kernel(
    x_ptr,
    y_ptr,
    gate_ptr,
    scale_ptr,
    shift_ptr,
    weight_ptr,
    bias_ptr,
    r_ptr,
    h_ptr,
    tokens,
    frame_tokens,
    channels,
    x_b,
    x_t,
    y_b,
    y_t,
    gate_b,
    gate_f,
    scale_b,
    scale_f,
    shift_b,
    shift_f,
    eps,
    LAYER: tl.constexpr,
    HAS_Y: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    token = row % tokens
    frame = token // frame_tokens
    c = tl.arange(0, BLOCK)
    inside = c < channels
    r = tl.load(x_ptr + batch * x_b + token * x_t + c, mask=inside, other=0.0).to(tl.float32)
    if HAS_Y:
        y = tl.load(y_ptr + batch * y_b + token * y_t + c, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            y = y * tl.load(gate_ptr + batch * gate_b + frame * gate_f + c, mask=inside, other=0.0).to(tl.float32)
        r = r + y
    tl.store(r_ptr + row * channels + c, stored(r, r_ptr, INTERPRETED), mask=inside)
    if LAYER:
        r = tl.where(inside, r - tl.sum(r, 0) / channels, 0.0)
    h = r * tl.rsqrt(tl.sum(r * r, 0) / channels + eps)
    if HAS_WEIGHT:
        h = h * tl.load(weight_ptr + c, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        h = h + tl.load(bias_ptr + c, mask=inside, other=0.0).to(tl.float32)
    if HAS_SCALE:
        h = h * (
            1.0 + tl.load(scale_ptr + batch * scale_b + frame * scale_f + c, mask=inside, other=0.0).to(tl.float32)
        )
    if HAS_SHIFT:
        h = h + tl.load(shift_ptr + batch * shift_b + frame * shift_f + c, mask=inside, other=0.0).to(tl.float32)
    tl.store(h_ptr + row * channels + c, stored(h, h_ptr, INTERPRETED), mask=inside)


def norm_modulate_triton(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    y: Tensor | None = None,
    gate: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    kind: str = "layer",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Compute `norm_modulate_reference`. Tensors whose last stride is not 1 are copied first."""
    y, gate, scale, shift = (None if part is None else _dense(part) for part in (y, gate, scale, shift))
    x = _dense(x)
    b, t, c = x.shape
    frames = next((m.shape[1] for m in (gate, scale, shift) if m is not None), 1)
    r, h = (torch.empty((b, t, c), dtype=x.dtype, device=x.device) for _ in range(2))
    norm_modulate_kernel[(b * t,)](
        x,
        y,
        gate,
        scale,
        shift,
        weight,
        bias,
        r,
        h,
        t,
        t // frames,
        c,
        *x.stride()[:2],
        *_strides(y),
        *_strides(gate),
        *_strides(scale),
        *_strides(shift),
        eps,
        LAYER=kind == "layer",
        HAS_Y=y is not None,
        HAS_GATE=gate is not None,
        HAS_SCALE=scale is not None,
        HAS_SHIFT=shift is not None,
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
        INTERPRETED=interpreted(x),
        BLOCK=triton.next_power_of_2(c),
        num_warps=4,
    )
    return r, h


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(x: Tensor | None) -> tuple[int, int]:
    return (0, 0) if x is None else (x.stride(0), x.stride(1))
