"""The bare matrix products of a computation: recorded while it runs, then run again back to back. Owns what counts as
one.

Products are PyTorch's calls for linear layers, attention's two products (also if one operation does both) and
convolutions, with the same tensors in the same layout, but without gaps. The bytes that they read and write are counted
once per call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WHOLE = ("linear", "matmul", "conv2d", "conv_transpose2d")
"""The operations in inference mode; in other modes they are split into `PARTS`."""
PARTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_linear_pointwise")
ATTENTION = "scaled_dot_product"


class MatrixProducts(TorchDispatchMode):
    """Records the products that run inside; `run` repeats them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.calls: list[Callable[[], Any]] = []
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        name = func._opname
        if name in WHOLE or name in PARTS:
            inputs = tuple(without_gaps(a) if isinstance(a, Tensor) else a for a in args)
            self._record(lambda: func(*inputs, **kwargs or {}), [*inputs, out])
        elif ATTENTION in name:
            q, k, v = (a.detach().contiguous().flatten(0, 1) for a in args[:3])
            weights = torch.empty(q.shape[0], q.shape[1], k.shape[1], dtype=q.dtype, device=q.device).fill_(0.5)
            keys = k.transpose(1, 2)
            self._record(lambda: (torch.bmm(q, keys), torch.bmm(weights, v)), [q, k, v, q])
        return out

    def run(self) -> float:
        """Run all of them one after another and return the milliseconds."""
        started = time.perf_counter()
        for call in self.calls:
            call()
        return (time.perf_counter() - started) * 1e3

    def _record(self, call: Callable[[], Any], tensors: list[Any]) -> None:
        self.calls.append(call)
        self.bytes += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


def without_gaps(x: Tensor) -> Tensor:
    """Return the tensor itself if it is dense in some order of its axes, else a contiguous copy."""
    order = sorted(range(x.ndim), key=lambda axis: (x.stride(axis), x.shape[axis]))
    dense = x.permute(order[::-1]).is_contiguous()
    return x.detach() if dense else x.detach().contiguous()
