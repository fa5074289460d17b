"""Norm and rotation of queries and keys, and the write of keys and values to a ring, in one pass: dispatch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.dispatch import triton_runs
from kernels.library import check_layout, library
from kernels.qk_norm_rope_write.reference import qk_norm_rope_write_reference, quantised

__all__ = ["qk_norm_rope_write", "quantised"]


def qk_norm_rope_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    places: Tensor,
    *,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    sink_cos: Tensor | None = None,
    sink_sin: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor | None]:
    """Return query and query for sink keys, `b t h d`: RMS norm, then rotary embedding. Write keys and values in place
    into t rows of each batch row's slot, starting at `places`: keys, values `s l h d`, int8 if scales `s l h`
    (float32) are given.

    q, k, v `b t h d`, raw; weights `d`, `h d` or None; cos, sin `b t d/2`; slots, places int32 `b`, on the device:
    their values are not read on the host. See the reference. Raises ValueError if the shapes do not fit.
    """
    _check(q, k, v, q_weight, k_weight, cos, keys, values, slots, places, key_scales, value_scales)
    check_layout(keys, values, key_scales, value_scales)
    if triton_runs(q):
        query, sink = torch.ops.lightcone.qk_norm_rope_write(
            q, k, v, q_weight, k_weight, cos, sin, keys, values, slots, places, key_scales, value_scales,
            sink_cos, sink_sin, eps,
        )  # fmt: skip
        return query, None if sink_cos is None else sink
    return qk_norm_rope_write_reference(
        q, k, v, q_weight, k_weight, cos, sin, keys, values, slots, places,
        key_scales=key_scales, value_scales=value_scales, sink_cos=sink_cos, sink_sin=sink_sin, eps=eps,
    )  # fmt: skip


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    places: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
) -> None:
    b, t, h, d = q.shape
    scales_fit = (key_scales is None) == (value_scales is None) and all(
        scales is None or scales.shape == keys.shape[:3] for scales in (key_scales, value_scales)
    )
    weights_fit = (q_weight is None) == (k_weight is None) and all(
        weight is None or tuple(weight.shape) in ((d,), (h, d)) for weight in (q_weight, k_weight)
    )
    fit = (
        k.shape == v.shape == q.shape
        and tuple(cos.shape) == (b, t, d // 2)
        and keys.shape == values.shape
        and tuple(keys.shape[2:]) == (h, d)
        and tuple(slots.shape) == tuple(places.shape) == (b,)
    )
    if not (fit and scales_fit and weights_fit):
        raise ValueError(
            f"qk_norm_rope_write: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}, cos {tuple(cos.shape)}, "
            f"keys {tuple(keys.shape)}, values {tuple(values.shape)}, slots {tuple(slots.shape)}, places "
            f"{tuple(places.shape)} do not fit, or one of two weights or scales is missing or of another shape"
        )


def _triton(*arguments: Any) -> tuple[Tensor, Tensor]:
    from kernels.qk_norm_rope_write.triton import qk_norm_rope_write_triton  # imported here: a CPU needs no Triton

    return qk_norm_rope_write_triton(*arguments)


library.define(
    "qk_norm_rope_write(Tensor q, Tensor k, Tensor v, Tensor? q_weight, Tensor? k_weight, Tensor cos, Tensor sin, "
    "Tensor(a!) keys, Tensor(b!) values, Tensor slots, Tensor places, Tensor(c!)? key_scales, "
    "Tensor(d!)? value_scales, Tensor? sink_cos, Tensor? sink_sin, float eps) -> (Tensor, Tensor)"
)
for _key in ("CPU", "CUDA"):
    library.impl("qk_norm_rope_write", _triton, _key)


def _shapes(q: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
    sink_cos = rest[-3]
    return q.new_empty(q.shape), q.new_empty(0 if sink_cos is None else q.shape)


torch.library.register_fake("lightcone::qk_norm_rope_write", _shapes, lib=library)
