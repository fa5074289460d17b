"""Rotary embedding as one complex product. Owns the path for a CPU, where it is one pass over memory, not six."""

import torch
from torch import Tensor


def rope_complex(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x `b l n d`, cos, sin `[b] l d/2` -> `b l n d`; same convention and precision as the reference."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    pairs = x.to(dtype).contiguous().unflatten(-1, (-1, 2))
    turn = torch.complex(cos.to(dtype), sin.to(dtype)).unsqueeze(-2)  # one angle for all heads
    return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2).to(x.dtype)
