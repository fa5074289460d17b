"""Gated residual, norm and modulation by PyTorch's operations, in the tensors' dtype. Owns the path for CPUs and
training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def norm_modulate_eager(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    y: Tensor | None = None,
    gate: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    kind: str = "layer",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Compute `norm_modulate_reference` in as few operations as possible; each rounds its result."""
    if y is not None:
        x = x + (y if gate is None else _over_frames(y, gate).mul(gate[:, :, None]).flatten(1, 2))
    c = x.shape[-1:]
    if kind == "layer":
        h = F.layer_norm(x, c, weight, bias, eps)
    else:
        h = F.rms_norm(x, c, weight, eps)
        h = h if bias is None else h + bias
    if scale is not None and shift is not None:
        return x, torch.addcmul(shift[:, :, None], _over_frames(h, scale), 1 + scale[:, :, None]).flatten(1, 2)
    if scale is not None:
        h = (_over_frames(h, scale) * (1 + scale[:, :, None])).flatten(1, 2)
    if shift is not None:
        h = (_over_frames(h, shift) + shift[:, :, None]).flatten(1, 2)
    return x, h


def _over_frames(x: Tensor, modulation: Tensor) -> Tensor:
    """View `b t c` as `b f t/f c`."""
    frames: Tensor = x.unflatten(1, (modulation.shape[1], -1))
    return frames
