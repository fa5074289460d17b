"""A workaround for Triton's interpreter, which truncates to bf16 instead of rounding. Owns the rounding before a store;
on a GPU it compiles away."""

import triton
from torch import Tensor
from triton import language as tl


def interpreted(x: Tensor) -> bool:
    """Return whether kernels on x run in the interpreter."""
    return x.device.type == "cpu"


@triton.jit
def stored(x, ptr, INTERPRETED: tl.constexpr):
    """Convert float32 x to the dtype that ptr points to, rounding to nearest, ties to even."""
    if INTERPRETED and ptr.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        x = bits.to(tl.float32, bitcast=True)
    return x.to(ptr.dtype.element_ty)
