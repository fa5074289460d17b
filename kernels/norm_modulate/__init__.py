"""Gated residual, norm and per-frame modulation between two layers: dispatch. Owns the choice of implementation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.dispatch import triton_runs
from kernels.library import library
from kernels.norm_modulate.eager import norm_modulate_eager

__all__ = ["norm_modulate"]


def norm_modulate(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    y: Tensor | None = None,
    gate: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    kind: str = "layer",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Return r = x + gate·y and h = (norm(r)·weight + bias)·(1 + scale) + shift, in x's dtype; see the reference.

    x, y `b t c`; gate, scale, shift `b f c`, for frames of t/f tokens; weight, bias `c`. Parts that are None are left
    out. kind: "layer" or "rms". Raises ValueError if the shapes do not fit.
    """
    _check(x, scale, shift, y, gate, weight, bias, kind)
    if triton_runs(x) and not _needs_gradient(x, scale, shift, y, gate, weight, bias):
        r, h = torch.ops.lightcone.norm_modulate(x, scale, shift, y, gate, weight, bias, kind, eps)
        return r, h
    return norm_modulate_eager(x, scale, shift, y=y, gate=gate, weight=weight, bias=bias, kind=kind, eps=eps)


def _check(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    y: Tensor | None,
    gate: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    kind: str,
) -> None:
    if kind not in ("layer", "rms"):
        raise ValueError(f"norm_modulate: kind {kind!r}, expected 'layer' or 'rms'")
    if gate is not None and y is None:
        raise ValueError("norm_modulate: gate without y: pass the y that it multiplies")
    b, t, c = x.shape
    frames = [m.shape for m in (gate, scale, shift) if m is not None]
    fit = (
        (y is None or y.shape == x.shape)
        and (weight is None or weight.shape == (c,))
        and (bias is None or bias.shape == (c,))
        and (not frames or (frames == [(b, frames[0][1], c)] * len(frames) and t % frames[0][1] == 0))
    )
    if not fit:
        parts = {"scale": scale, "shift": shift, "y": y, "gate": gate, "weight": weight, "bias": bias}
        shapes = ", ".join(f"{name} {tuple(m.shape)}" for name, m in parts.items() if m is not None)
        raise ValueError(f"norm_modulate: x {tuple(x.shape)} and {shapes} do not fit")


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _triton(*arguments: Any) -> tuple[Tensor, Tensor]:
    from kernels.norm_modulate.triton import norm_modulate_triton  # imported here: a CPU needs no Triton

    return norm_modulate_triton(*arguments)


library.define(
    "norm_modulate(Tensor x, Tensor? scale, Tensor? shift, Tensor? y, Tensor? gate, Tensor? weight, Tensor? bias, "
    "str kind, float eps) -> (Tensor, Tensor)"
)
for _key in ("CPU", "CUDA"):
    library.impl("norm_modulate", _triton, _key)


def _shapes(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


torch.library.register_fake("lightcone::norm_modulate", _shapes, lib=library)
