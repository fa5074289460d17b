"""What Triton's interpreter gets wrong, put right: bf16 is cut off there instead of rounded. Owns the store's rounding;
on a GPU all of it compiles away."""

import triton
from torch import Tensor
from triton import language as tl


def interpreted(x: Tensor) -> bool:
    """Whether kernels on x run in the interpreter."""
    return x.device.type == "cpu"


@triton.jit
def stored(x, ptr, INTERPRETED: tl.constexpr):
    """float32 x in the dtype that ptr points to, rounded to the nearest, ties to even."""
    if INTERPRETED and ptr.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        x = bits.to(tl.float32, bitcast=True)
    return x.to(ptr.dtype.element_ty)
