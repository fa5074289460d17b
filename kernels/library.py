"""The torch library in which the fused operations are registered, as `torch.ops.lightcone`, and the cache layouts that
the ring's operations accept."""

import torch
from torch import Tensor

library = torch.library.Library("lightcone", "DEF")


def check_layout(keys: Tensor, values: Tensor, key_scales: Tensor | None, value_scales: Tensor | None) -> None:
    """Raise ValueError unless keys and values `s l h d` have equal strides, the last of them 1, and scales are
    contiguous: kernels take one set of strides, and a tensor written in place cannot be copied first."""
    scales_fit = all(scales is None or scales.is_contiguous() for scales in (key_scales, value_scales))
    if keys.stride() != values.stride() or keys.stride(-1) != 1 or not scales_fit:
        raise ValueError(
            f"keys have strides {keys.stride()}, values {values.stride()}: give both the same layout, with "
            "each head's channels contiguous, and contiguous scales"
        )
