"""GELU in its tanh form: dispatch. Owns the choice of implementation.

½x·(1 + tanh u) is x·σ(2u), and on a CPU the exponential in σ costs a third of a tanh. With gradients, and on a GPU,
PyTorch's implementation is used. `python -m kernels.gelu.timing` prints both.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["gelu"]

_INNER, _OUTER = 0.044715, 2 * math.sqrt(2 / math.pi)


def gelu(x: Tensor) -> Tensor:
    """Return ½x·(1 + tanh(√(2/π)·(x + 0.044715x³))) (arXiv:1606.08415, section 2), in x's dtype."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")
    if torch.compiler.is_compiling():
        y = x.float()
        return (y * torch.sigmoid(_OUTER * (y + _INNER * y * y * y))).to(x.dtype)
    u = torch.addcmul(x, x * x, x, value=_INNER)
    return u.mul_(_OUTER).sigmoid_().mul_(x)
