"""A linear layer whose weight is in oneDNN's layout. Owns the path for bfloat16 on CPUs with AMX tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def can_pack() -> bool:
    """Return whether packing helps on this CPU and this PyTorch has the operations (those its compiler uses)."""
    operations = all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
    return operations and bool(torch.cpu.get_capabilities().get("amx_bf16", False))


class PackedLinear(nn.Module):
    """x·Wᵀ + b for bfloat16 x `… in`; shares `linear`'s parameters weight and bias."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype is not torch.bfloat16 or torch.compiler.is_compiling():
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return out
