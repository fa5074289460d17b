"""Which implementation an operation takes: Triton on a GPU that can, PyTorch elsewhere. Owns the rule, and a way to
have Triton's interpreter instead, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

import torch
from torch import Tensor

_through_triton: ContextVar[bool] = ContextVar("through_triton", default=False)


def triton_runs(x: Tensor) -> bool:
    """Whether x goes to the Triton kernels: 16-bit or float32 on a CUDA device of capability 8 or more, with Triton
    there; or anything inside `through_triton`."""
    if _through_triton.get():
        return True
    if x.device.type != "cuda" or x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return False
    return torch.cuda.get_device_capability(x.device)[0] >= 8 and find_spec("triton") is not None


@contextmanager
def through_triton() -> Iterator[None]:
    """Everything inside takes the Triton kernels, on a CPU by Triton's interpreter: needs TRITON_INTERPRET=1 in the
    environment before the kernels are first loaded."""
    token = _through_triton.set(True)
    try:
        yield
    finally:
        _through_triton.reset(token)
