"""RMS norm and rotary embedding of queries or keys, as they are defined. Owns the meaning; speed is its neighbours'."""

import torch
from torch import Tensor

from kernels.rope.reference import rope_reference


def norm_rope_reference(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """x/√(mean x² + eps)·weight (arXiv:1910.07467, eq. 4), then rotated: x `b l n d` → the same, in x's dtype.

    weight `d`: the norm is per head; weight `n d`: over all heads. Arithmetic in at least float32.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    y = x.to(dtype)
    dims = tuple(range(-weight.ndim, 0))
    y = y * torch.rsqrt(y.square().mean(dims, keepdim=True) + eps) * weight.to(dtype)
    return rope_reference(y, cos, sin).to(x.dtype)
