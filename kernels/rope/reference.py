"""Rotary embedding as it is defined. Owns the pairing convention: adjacent channels, as in Wan (arXiv:2503.20314)."""

import torch
from torch import Tensor


def rope_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(x₂ᵢ + j·x₂ᵢ₊₁)·(cos + j·sin) (arXiv:2104.09864, eq. 34): x `b l n d`, cos, sin `[b] l d/2` -> `b l n d`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    even, odd = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)  # b l n d/2 each
    cos, sin = cos.to(dtype).unsqueeze(-2), sin.to(dtype).unsqueeze(-2)  # one angle for all heads
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)
