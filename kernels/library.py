"""What the ring's operations share: the torch library that they are registered in, as `torch.ops.lightcone`, and which
layouts of a cache they take."""

import torch
from torch import Tensor

library = torch.library.Library("lightcone", "DEF")


def check_layout(keys: Tensor, values: Tensor, key_scales: Tensor | None, value_scales: Tensor | None) -> None:
    """Raises ValueError unless keys and values `s l h d` have equal strides, the last of them 1, and scales have no
    gaps: kernels are told the strides of one, and what is written in place cannot be copied first."""
    scales_fit = all(scales is None or scales.is_contiguous() for scales in (key_scales, value_scales))
    if keys.stride() != values.stride() or keys.stride(-1) != 1 or not scales_fit:
        raise ValueError(
            f"keys have strides {keys.stride()}, values {values.stride()}: give both in one layout, a head's channels "
            "beside each other, and scales without gaps"
        )
