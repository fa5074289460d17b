"""Three-axis rotary angles. Owns the split of a head over frame, row and column; `kernels.norm_rope` applies them.

The split and pairing are Wan's (arXiv:2503.20314): of d/2 complex channels, ⌊(d/2)/3⌋ each to row and column, the rest
to the frame. Angles are computed in float64 from an int64 frame index, so frame one million is as exact as frame one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from world.model.config import TransformerConfig


@dataclass(frozen=True, slots=True)
class Angles:
    """cos and sin of the rotation of every token: float32, `b l d/2`."""

    cos: Tensor
    sin: Tensor

    def part(self, tokens: slice) -> Angles:
        return Angles(self.cos[:, tokens], self.sin[:, tokens])


class RotaryAngles(nn.Module):
    """Map frame indices `b f` (int64) to `Angles` of `f × tokens` tokens."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        pairs = config.head_dim // 2
        spatial = pairs // 3
        temporal = pairs - 2 * spatial
        rows = torch.arange(config.height // config.patch).repeat_interleave(config.width // config.patch)
        columns = torch.arange(config.width // config.patch).repeat(config.height // config.patch)
        space = torch.cat(
            [
                rows.double()[:, None] * _frequencies(spatial, config.rope_base),
                columns.double()[:, None] * _frequencies(spatial, config.rope_base),
            ],
            dim=1,
        )  # tokens, 2·spatial
        self.register_buffer("time_frequencies", _frequencies(temporal, config.rope_base), persistent=False)
        self.register_buffer("space_cos", space.cos().float(), persistent=False)
        self.register_buffer("space_sin", space.sin().float(), persistent=False)
        self.time_frequencies: Tensor
        self.space_cos: Tensor
        self.space_sin: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it without types
        for name, buffer in exact.items():  # follow the device but not the dtype: a cast would round the angles
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def forward(self, frame_index: Tensor) -> Angles:
        time = frame_index.double()[..., None] * self.time_frequencies  # b f temporal
        return Angles(self._join(time.cos(), self.space_cos), self._join(time.sin(), self.space_sin))

    def _join(self, time: Tensor, space: Tensor) -> Tensor:
        b, f, _ = time.shape
        n = space.shape[0]
        parts = [time.float()[:, :, None].expand(b, f, n, -1), space.expand(b, f, n, -1)]
        return torch.cat(parts, dim=-1).flatten(1, 2)  # b (f n) d/2


def _frequencies(num: int, base: float) -> Tensor:
    return base ** -(torch.arange(num, dtype=torch.float64) / max(num, 1))
