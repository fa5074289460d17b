"""Which implementation an operation takes: Triton on a GPU that can, PyTorch elsewhere. Owns the rule, and a way to
have Triton's interpreter instead, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_forced = False  # a plain variable: the compiler follows it, a ContextVar would break its graphs


def triton_runs(x: Tensor) -> bool:
    """Whether x goes to the Triton kernels: 16-bit or float32 on a CUDA device of capability 8 or more, with Triton
    there; or anything inside `through_triton`."""
    if _forced:
        return True
    if x.device.type != "cuda" or x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return False
    return bool(_device_can(x.device.index))


@cache
def _device_can(index: int) -> bool:
    return torch.cuda.get_device_capability(index)[0] >= 8 and find_spec("triton") is not None


if torch.cuda.is_available():  # only there, since this loads the compiler, which takes a second
    _device_can = torch.compiler.assume_constant_result(_device_can)


@contextmanager
def through_triton() -> Iterator[None]:
    """Everything inside takes the Triton kernels, on a CPU by Triton's interpreter: needs TRITON_INTERPRET=1 in the
    environment before the kernels are first loaded. For tests: it holds for all threads."""
    global _forced
    before, _forced = _forced, True
    try:
        yield
    finally:
        _forced = before
