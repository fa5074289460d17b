"""RMS norm, then rotary embedding, of queries or keys: dispatch. Owns the choice of implementation."""

import torch
from torch import Tensor

from kernels.norm_rope.fused import NormRope, norm_rope_forward
from kernels.norm_rope.reference import norm_rope_reference

__all__ = ["norm_rope", "norm_turn", "qk_norm_rope", "qk_norm_turn"]


def norm_rope(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x/√(mean x² + eps)·weight, with each pair of adjacent channels rotated by its token's angle; x's dtype.

    x `b l n d`; weight `d` (norm per head) or `n d` (over all heads); cos, sin `b l d/2` or `l d/2`. Arithmetic in
    float32 (float64 for float64). Raises ValueError if the shapes do not fit.
    """
    expected = (x.shape[1], x.shape[-1] // 2)
    if tuple(weight.shape) not in (tuple(x.shape[3:]), tuple(x.shape[2:])) or cos.shape[-2:] != expected:
        raise ValueError(
            f"norm_rope: x {tuple(x.shape)}, weight {tuple(weight.shape)}, cos {tuple(cos.shape)} do not fit"
        )
    if torch.compiler.is_compiling():
        return norm_rope_reference(x, weight, cos, sin, eps)  # the compiler fuses it
    if not torch.is_grad_enabled():
        return norm_turn(x, weight, torch.complex(cos, sin).unsqueeze(-2), eps)
    result: Tensor = NormRope.apply(x, weight, cos, sin, eps)  # type: ignore[no-untyped-call]  # torch's own
    return result


def qk_norm_rope(
    qk: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Apply `norm_rope` to queries and keys, qk `b l 2 n d` → `b l n d` each; without gradients in one pass."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return norm_rope(qk[:, :, 0], q_weight, cos, sin, eps), norm_rope(qk[:, :, 1], k_weight, cos, sin, eps)
    return qk_norm_turn(qk, q_weight, k_weight, torch.complex(cos, sin)[..., None, None, :], eps)


def norm_turn(x: Tensor, weight: Tensor, turn: Tensor, eps: float = 1e-6) -> Tensor:
    """Apply `norm_rope` without gradients, from turn = cos + i·sin, complex `b l 1 d/2` (one for all heads)."""
    return norm_rope_forward(x, weight, turn, eps, tuple(range(-weight.ndim, 0)))


def qk_norm_turn(
    qk: Tensor, q_weight: Tensor, k_weight: Tensor, turn: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Apply `qk_norm_rope` without gradients, from turn = cos + i·sin, complex `b l 1 1 d/2` (one for all heads)."""
    weights = torch.stack((q_weight, k_weight)).view(2, -1, qk.shape[-1])  # 2 1 d, or 2 n d
    dims = (-1,) if q_weight.ndim == 1 else (-2, -1)
    q, k = norm_rope_forward(qk, weights, turn, eps, dims).unbind(2)
    return q, k
