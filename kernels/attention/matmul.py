"""Dense attention as matmul, softmax, matmul. Owns the path for bfloat16 on a CPU, whose matrix unit it reaches."""

import math

from torch import Tensor


def matmul_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """q `b lq n d`, k, v `b lk n d` -> `b lq n d`, in the tensors' dtype (softmax sums in float32 inside)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # b n l d
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)  # b n lq lk
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2)
