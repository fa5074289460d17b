"""Write chunks of keys and values into rings and attend, in one call: dispatch. Owns the rule where that is possible;
knows no models and not where libraries are stored.

With a few dozen queries in bfloat16, calls, softmax and copies take half of attention's time on a CPU. On a CPU with
AVX512-BF16, machine code (`avx512.cpp`, which `native.build` compiles on the machine it is for) does all of it in one
pass. Where `applies` returns False, callers use PyTorch's operations. `python -m kernels.write_attend.timing` prints
both on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.dispatch import KernelChoice
from kernels.write_attend import native

__all__ = ["applies", "native", "write_attend"]


def applies(q: Tensor, keys: Tensor, choice: KernelChoice) -> bool:
    """Return whether `write_attend` is chosen and can handle queries `b l n d` and keys `s n f t d` here; the library
    must have been loaded (`native.load`)."""
    return (
        choice.native_attention
        and native.is_loaded()
        and q.device.type == "cpu"
        and q.dtype is keys.dtype is torch.bfloat16
        and q.shape[-1] % 32 == 0
    )


def write_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: Sequence[Tensor],
    *,
    q_sink: Tensor | None = None,
    num_sink: int = 0,
) -> Tensor:
    """Return attended values `b l n d` and write keys and values in place. `reference` documents the arguments,
    `applies` says when this can be called. No gradients. Raises ValueError or IndexError if shapes or rows do not fit.
    """
    attended: Tensor = torch.ops.lightcone_avx512.write_attend.default(q, k, v, keys, values, rows, q_sink, num_sink)
    return attended
