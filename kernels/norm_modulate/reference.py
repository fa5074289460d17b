"""The definition of gated residual, norm and per-frame modulation."""

from __future__ import annotations

import torch
from torch import Tensor


def norm_modulate_reference(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    y: Tensor | None = None,
    gate: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    kind: str = "layer",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Return r = x + gate·y and h = (norm(r)·weight + bias)·(1 + scale) + shift (arXiv:2212.09748, §3.2).

    x, y `b t c`; gate, scale, shift `b f c`, of frames of t/f tokens each; weight, bias `c`. Parts that are None are
    left out. kind: "layer" (arXiv:1607.06450) or "rms" (arXiv:1910.07467). Arithmetic in at least float32, both
    results in x's dtype.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    r = x.to(dtype)
    if y is not None:
        r = r + (y.to(dtype) if gate is None else _of_tokens(gate.to(dtype), x) * y.to(dtype))
    centred = r - r.mean(-1, keepdim=True) if kind == "layer" else r
    h = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        h = h * weight.to(dtype)
    if bias is not None:
        h = h + bias.to(dtype)
    if scale is not None:
        h = h * (1 + _of_tokens(scale.to(dtype), x))
    if shift is not None:
        h = h + _of_tokens(shift.to(dtype), x)
    return r.to(x.dtype), h.to(x.dtype)


def _of_tokens(per_frame: Tensor, x: Tensor) -> Tensor:
    """Repeat `b f c` to `b t c`."""
    return per_frame.repeat_interleave(x.shape[1] // per_frame.shape[1], dim=1)
