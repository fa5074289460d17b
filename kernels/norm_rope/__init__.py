"""RMS norm, then rotary embedding, of queries or keys: the door. Owns the choice of implementation."""

import torch
from torch import Tensor

from kernels.norm_rope.fused import NormRope, norm_rope_forward
from kernels.norm_rope.reference import norm_rope_reference

__all__ = ["norm_rope"]


def norm_rope(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float = 1e-6) -> Tensor:
    """x/√(mean x² + eps)·weight, then each pair of adjacent channels turned by its token's angle; x's dtype.

    x `b l n d`; weight `d` (norm per head) or `n d` (over all heads); cos, sin `b l d/2` or `l d/2`. Arithmetic in
    float32 (float64 for float64). Raises ValueError where the shapes do not fit.
    """
    expected = (x.shape[1], x.shape[-1] // 2)
    if tuple(weight.shape) not in (tuple(x.shape[3:]), tuple(x.shape[2:])) or cos.shape[-2:] != expected:
        raise ValueError(
            f"norm_rope: x {tuple(x.shape)}, weight {tuple(weight.shape)}, cos {tuple(cos.shape)} do not fit"
        )
    if torch.compiler.is_compiling():
        return norm_rope_reference(x, weight, cos, sin, eps)  # the compiler fuses it by itself
    if not torch.is_grad_enabled():
        return norm_rope_forward(x, weight, cos, sin, eps)
    result: Tensor = NormRope.apply(x, weight, cos, sin, eps)  # type: ignore[no-untyped-call]  # torch's own
    return result
