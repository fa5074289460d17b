"""The dtype of training's matrix products. Weights stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from world.device import has_fast_bf16


def autocast(module: nn.Module) -> AbstractContextManager[None]:
    """Return bf16 autocast where that is fast on the module's device; otherwise a context that does nothing. A module
    in float64 keeps its dtype."""
    device = next(module.parameters()).device
    return torch.autocast(device.type, dtype=torch.bfloat16) if has_fast_bf16(device) else nullcontext()
