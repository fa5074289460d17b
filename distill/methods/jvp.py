"""Exact Jacobian-vector products of networks. Owns the choice between forward mode and double reverse mode.

Forward mode takes one pass and needs a forward-mode rule for every operation. Fused attention has none, so it is
disabled here. For a model with other operations that lack one, two reverse passes give the same product exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Mode = Literal["forward", "reverse"]

Function = Callable[[Tensor, Tensor], Tensor]


def jvp(
    function: Function,
    at: tuple[Tensor, Tensor],
    along: tuple[Tensor, Tensor],
    *,
    mode: Mode = "forward",
) -> tuple[Tensor, Tensor]:
    """Return function(*at) and its derivative in the direction `along`, both without gradient.

    Forward mode runs without autograd, so operations with a hand-written backward use their plain implementation. If an
    operation has no rule for the mode (in reverse mode: no second derivative), torch's error is raised; there is no
    fallback to an approximation.
    """
    if mode == "reverse":
        return _double_reverse(function, at, along)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # on first use of forward mode torch imports modules that use its own deprecated torch.jit.script
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        try:
            value, change = torch.func.jvp(function, at, along)[:2]  # typed as if it always had has_aux's third
        except (RuntimeError, NotImplementedError) as error:  # what torch raises for a missing rule, among other things
            error.add_note("if the network has an operation without a rule for forward mode, set jvp_mode='reverse'")
            raise
    return value.detach(), change.detach()


@torch.enable_grad()
def _double_reverse(
    function: Function, at: tuple[Tensor, Tensor], along: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return J·v as the derivative in u of (uᵀ·J)·v, which is linear in u."""
    inputs = tuple(part.detach().requires_grad_(True) for part in at)
    with sdpa_kernel(SDPBackend.MATH):
        value = function(*inputs)
        probe = torch.zeros_like(value, requires_grad=True)
        pulled = torch.autograd.grad(value, inputs, probe, create_graph=True, materialize_grads=True)
        total = torch.stack([(part * direction).sum() for part, direction in zip(pulled, along, strict=True)]).sum()
        (change,) = torch.autograd.grad(total, probe)
    return value.detach(), change.detach()
