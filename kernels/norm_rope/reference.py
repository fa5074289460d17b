"""The definition of RMS norm and rotary embedding of queries or keys."""

import torch
from torch import Tensor


def rope_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return (x₂ᵢ + j·x₂ᵢ₊₁)·(cos + j·sin) (arXiv:2104.09864, eq. 34): x `b l n d`, cos, sin `[b] l d/2` → `b l n d`.

    Pairs are adjacent channels, as in Wan (arXiv:2503.20314).
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    even, odd = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)  # b l n d/2 each
    cos, sin = cos.to(dtype).unsqueeze(-2), sin.to(dtype).unsqueeze(-2)  # one angle for all heads
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def norm_rope_reference(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return x/√(mean x² + eps)·weight (arXiv:1910.07467, eq. 4), rotated: x `b l n d` → the same, in x's dtype.

    weight `d`: the norm is per head; weight `n d`: over all heads. Arithmetic in at least float32.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    y = x.to(dtype)
    dims = tuple(range(-weight.ndim, 0))
    y = y * torch.rsqrt(y.square().mean(dims, keepdim=True) + eps) * weight.to(dtype)
    return rope_reference(y, cos, sin).to(x.dtype)
