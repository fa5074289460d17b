"""Rotary embedding: the door. Owns the choice of implementation; where the angles come from is the caller's affair."""

from torch import Tensor

from kernels.rope.complex import rope_complex
from kernels.rope.reference import rope_reference

__all__ = ["apply_rope"]


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair of adjacent channels of x `b l n d` by its token's angle: cos, sin `b l d/2` or `l d/2`.

    The arithmetic is float32 whatever x is (float64 for float64), the result has x's dtype.
    Raises ValueError where the angles do not fit x.
    """
    _check(x, cos, sin)
    return rope_complex(x, cos, sin) if x.device.type == "cpu" else rope_reference(x, cos, sin)


def _check(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    shape = tuple(cos.shape)
    if x.ndim == 4 and x.shape[-1] % 2 == 0 and cos.shape == sin.shape:
        angles = (x.shape[1], x.shape[-1] // 2)
        if shape in (angles, (1, *angles), (x.shape[0], *angles)):
            return
    raise ValueError(
        f"apply_rope: x {tuple(x.shape)}, cos {shape} and sin {tuple(sin.shape)} do not fit; "
        "expected x (b, l, n, d) with even d, and cos, sin (l, d/2) or (b, l, d/2)"
    )
