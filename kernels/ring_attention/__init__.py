"""Attention over ring slots: dispatch. Owns the choice of implementation; knows no windows, chunks or positions.

A slot's valid rows come first, in any order; attention is dense over them, so it needs no mask, roll or copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.dispatch import triton_runs
from kernels.library import check_layout, library
from kernels.ring_attention.reference import merged, ring_attention_reference

__all__ = ["merged", "ring_attention"]


def ring_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    num_valid: Tensor,
    *,
    q_sink: Tensor | None = None,
    num_sink: int = 0,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    gate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return attended values `b t h d`, and the log-sum-exp float32 `b t h` with which `merged` joins results over
    disjoint parts of the keys.

    q, q_sink `b t h d`; keys, values `s l h d`, int8 if scales `s l h` are given; slots, num_valid int32 `b`, on the
    device; gate `b t h`. See the reference. Raises ValueError if the shapes do not fit.
    """
    _check(q, keys, values, slots, num_valid, q_sink, num_sink, key_scales, value_scales, gate)
    check_layout(keys, values, key_scales, value_scales)
    if triton_runs(q):
        out, lse = torch.ops.lightcone.ring_attention(
            q, keys, values, slots, num_valid, q_sink, num_sink, key_scales, value_scales, gate
        )
        return out, lse
    return ring_attention_reference(
        q, keys, values, slots, num_valid, q_sink=q_sink, num_sink=num_sink,
        key_scales=key_scales, value_scales=value_scales, gate=gate,
    )  # fmt: skip


def _check(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    num_valid: Tensor,
    q_sink: Tensor | None,
    num_sink: int,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    gate: Tensor | None,
) -> None:
    b, t, h, d = q.shape
    fit = (
        keys.shape == values.shape
        and tuple(keys.shape[2:]) == (h, d)
        and tuple(slots.shape) == tuple(num_valid.shape) == (b,)
        and (q_sink is None or q_sink.shape == q.shape)
        and (key_scales is None) == (value_scales is None)
        and all(scales is None or scales.shape == keys.shape[:3] for scales in (key_scales, value_scales))
        and (gate is None or tuple(gate.shape) == (b, t, h))
    )
    if not fit:
        raise ValueError(
            f"ring_attention: q {tuple(q.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}, slots "
            f"{tuple(slots.shape)}, num_valid {tuple(num_valid.shape)} do not fit, or q_sink, gate or scales do not"
        )
    if num_sink and q_sink is None:
        raise ValueError(f"ring_attention: num_sink {num_sink} without q_sink: pass the queries for sink keys")


def _triton(*arguments: Any) -> tuple[Tensor, Tensor]:
    from kernels.ring_attention.triton import ring_attention_triton  # imported here: a CPU needs no Triton

    return ring_attention_triton(*arguments)


library.define(
    "ring_attention(Tensor q, Tensor keys, Tensor values, Tensor slots, Tensor num_valid, Tensor? q_sink, "
    "int num_sink, Tensor? key_scales, Tensor? value_scales, Tensor? gate) -> (Tensor, Tensor)"
)
for _key in ("CPU", "CUDA"):
    library.impl("ring_attention", _triton, _key)


def _shapes(q: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


torch.library.register_fake("lightcone::ring_attention", _shapes, lib=library)
