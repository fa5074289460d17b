"""Dense attention: dispatch. Owns the choice of implementation; knows nothing of caches, windows or positions.

In bfloat16 on a CPU, plain matrix products around a softmax are faster than `scaled_dot_product_attention` when
gradients are needed, and always on a CPU without AMX tiles, where the fused operation is no faster than in float32.
Everywhere else the fused operation is used. `python -m kernels.attention.timing` prints both on this machine; callers
that have measured pass their own `KernelChoice`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.attention.matmul import matmul_attention
from kernels.attention.ranges import OwnBlock, ranges_attention
from kernels.dispatch import BY_RULE, KernelChoice

__all__ = ["attention"]

_HAS_AMX = bool(torch.cpu.get_capabilities().get("amx_bf16", False))  # a plain variable: the compiler can trace it


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    q_sink: Tensor | None = None,
    num_sink: int = 0,
    own: OwnBlock | None = None,
    choice: KernelChoice = BY_RULE,
) -> Tensor:
    """Return softmax(q·kᵀ / √d)·v for every head: q `b lq n d`, k and v `b lk n d` -> `b lq n d`.

    mask: bool, broadcastable to `b n lq lk`, True where the query sees the key; every query must see at least one.
    Without a mask is the fast case: keys may be in any order, since the softmax does not depend on it.
    q_sink: `b lq n d`, replaces q for the first `num_sink` keys (a sink rotated to a bounded distance).
    own: keys and values `b lq n d` and a block size: keys in addition to k that a query sees only within its block.
    choice: which kernel to use without gradients on a CPU. Raises ValueError if the shapes do not fit together.
    """
    _check(q, k, v, mask)
    if own is not None or (q_sink is not None and num_sink):
        return ranges_attention(q, k, v, mask=mask, q_sink=q_sink, num_sink=num_sink, own=own)
    if _use_matmul(q, k, v, choice):
        return matmul_attention(q, k, v, mask=mask)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)


def _use_matmul(q: Tensor, k: Tensor, v: Tensor, choice: KernelChoice) -> bool:
    if q.device.type != "cpu":
        return False
    needs_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if choice.matmul_attention is not None and not needs_gradient:
        return choice.matmul_attention
    if _compute_dtype(q) is not torch.bfloat16:
        return False
    return needs_gradient or not _HAS_AMX


def _compute_dtype(q: Tensor) -> torch.dtype:
    """Return the dtype in which the products will run: autocast's if it is enabled, otherwise the tensor's."""
    device = q.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else q.dtype


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[2:] != k.shape[2:]:
        raise ValueError(
            f"attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit; "
            "expected q (b, lq, n, d) and k, v (b, lk, n, d)"
        )
    if mask is not None and mask.dtype is not torch.bool:
        raise ValueError(f"attention: mask is {mask.dtype}, expected torch.bool with True where a query sees a key")
