"""RMS norm and rotary embedding with a hand-written backward pass. Owns the path for training and CPUs.

Autograd through the definition makes about twenty passes over memory each way; this makes half as many and saves only
x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def norm_rope_forward(x: Tensor, weight: Tensor, turn: Tensor, eps: float, dims: tuple[int, ...]) -> Tensor:
    """Compute norm_rope without gradients, the norm over `dims`, in as few passes and calls as possible. x `… n d`;
    weight and turn, complex `… d/2`, broadcast to it."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    unit = x.to(dtype)
    norm = torch.linalg.vector_norm(unit, dim=dims, keepdim=True)
    root = norm.square_().mul_(norm.numel() / unit.numel()).add_(eps).rsqrt_()
    return _rotate_((unit * root).mul_(weight), turn).to(x.dtype)


class NormRope(torch.autograd.Function):
    """norm_rope(x, weight, cos, sin, eps); no gradient for the angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        dims = tuple(range(-weight.ndim, 0))
        unit = x.to(dtype)
        root = torch.rsqrt(unit.square().mean(dims, keepdim=True) + eps)
        turn = torch.complex(cos.to(dtype), sin.to(dtype)).unsqueeze(-2)
        ctx.save_for_backward(x, weight, root, turn)
        scaled = (unit * root).mul_(weight.to(dtype))
        return _rotate_(scaled, turn).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight, root, turn = ctx.saved_tensors
        dims = tuple(range(-weight.ndim, 0))
        gradient = _rotate_(gradients[0].to(root.dtype, copy=True).contiguous(), turn.conj())
        unit = x.to(root.dtype) * root
        leading = tuple(range(x.ndim - weight.ndim))
        weight_gradient = (gradient * unit).sum(leading)
        gradient.mul_(weight.to(root.dtype))
        along = (gradient * unit).mean(dims, keepdim=True)
        return (
            gradient.sub_(unit.mul_(along)).mul_(root).to(x.dtype),
            weight_gradient.to(weight.dtype),
            None,
            None,
            None,
        )


def _rotate_(x: Tensor, turn: Tensor) -> Tensor:
    """Multiply pairs of adjacent channels, as complex numbers, in place."""
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(turn)
    return x
