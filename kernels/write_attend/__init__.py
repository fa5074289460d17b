"""Chunks of keys and values written into rings, each before it attends, in one call: the door. Owns whether it is used;
knows no models and no places where files are kept.

Between bfloat16 matrix products of some tens of rows, half of attention's time on a CPU is calls, softmax and copies.
On a CPU with AVX512-BF16, machine code (`avx512.cpp`, which `native.build` compiles on the machine that it is for) does
all of it in one pass. Elsewhere nothing is lost: `applies` says no, and PyTorch's operations go on.
`python -m kernels.write_attend.timing` prints both on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from kernels.write_attend import native

__all__ = ["applies", "native", "prefer_native", "without_native", "write_attend"]

_preferred = False


def prefer_native(preferred: bool) -> None:
    """Whether the machine code is used where it applies, in this process; `native.load` comes first."""
    global _preferred
    _preferred = preferred


@contextmanager
def without_native() -> Iterator[None]:
    """Inside, all threads go without it."""
    before = _preferred
    prefer_native(False)
    try:
        yield
    finally:
        prefer_native(before)


def applies(q: Tensor, keys: Tensor) -> bool:
    """Whether queries `b l n d` and keys `s n f t d` can be left to `write_attend` here, and are to be."""
    return (
        _preferred
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
    """Attended values `b l n d`; keys and values are written in place. See `reference` for what is what, `applies` for
    where it can be called. No gradients. Raises ValueError or IndexError where the shapes or rows do not fit."""
    attended: Tensor = torch.ops.lightcone_avx512.write_attend.default(q, k, v, keys, values, rows, q_sink, num_sink)
    return attended
