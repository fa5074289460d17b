"""Which implementation an operation uses: Triton on a GPU that supports it, PyTorch elsewhere, and what a model may
choose. Owns the rule, the type of the choice, and the switch by which tests run Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_forced = False  # a plain variable: the compiler can trace it; a ContextVar would break its graphs


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelChoice:
    """Which of several equivalent kernels to use on a CPU. A model carries one and passes it along.

    matmul_attention: whether attention without gradients is plain matrix products; None: by the rule of
    `kernels.attention`. native_attention: whether `kernels.write_attend` is used where it applies.
    """

    matmul_attention: bool | None = None
    native_attention: bool = False


BY_RULE = KernelChoice()
"""The choice of callers that have measured nothing."""


def triton_runs(x: Tensor) -> bool:
    """Return whether x is handled by the Triton kernels: 16-bit or float32 on a CUDA device of capability 8 or more
    with Triton installed, or anything inside `through_triton`."""
    if _forced:
        return True
    if x.device.type != "cuda" or x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return False
    return bool(_device_can(x.device.index))


@cache
def _device_can(index: int) -> bool:
    return torch.cuda.get_device_capability(index)[0] >= 8 and find_spec("triton") is not None


if torch.cuda.is_available():  # only then: this loads the compiler, which takes a second
    _device_can = torch.compiler.assume_constant_result(_device_can)


@contextmanager
def through_triton() -> Iterator[None]:
    """Run everything inside by the Triton kernels, on a CPU by Triton's interpreter; that needs TRITON_INTERPRET=1 in
    the environment before the kernels are first loaded. For tests: it applies to all threads."""
    global _forced
    before, _forced = _forced, True
    try:
        yield
    finally:
        _forced = before
