"""Dense attention as matmul, softmax, matmul. Owns the path for bfloat16 on a CPU, where it uses the matrix unit."""

import math

import torch
from torch import Tensor


def matmul_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Attend: q `b lq n d`, k, v `b lk n d` -> `b lq n d`, in the tensors' dtype (the softmax sums in float32)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # b n l d
    q = q * (1 / math.sqrt(q.shape[-1]))
    if mask is None:  # fewer calls than a product of four-dimensional tensors
        scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
        out = torch.bmm(scores.softmax(-1).to(v.dtype), v.flatten(0, 1))
        return out.view(q.shape).transpose(1, 2)
    scores = (q @ k.transpose(-1, -2)).masked_fill(~mask, -math.inf)  # b n lq lk
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2)
