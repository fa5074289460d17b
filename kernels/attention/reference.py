"""The definition of dense attention. The other modules of this folder are the fast implementations."""

import math

import torch
from torch import Tensor


def attention_reference(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Compute attention (arXiv:1706.03762, eq. 1) in at least float32: q `b lq n d`, k, v `b lk n d` -> `b lq n d`."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    scores = torch.einsum("bqnd,bknd->bnqk", q.to(dtype), k.to(dtype)) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.einsum("bnqk,bknd->bqnd", scores.softmax(-1), v.to(dtype)).to(q.dtype)
