"""Where the chunks of a slot are stored, and K/V of some slots as a pass sees them. Owns ring positions; no memory.

A slot holds its sink in fixed frames, then a ring of window + 1 chunks. Chunk i ≥ sink is stored at ring position
(i − sink) mod (window + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.dispatch import BY_RULE, KernelChoice
from kernels.qk_norm_rope_write import quantised
from world.model.config import TransformerConfig
from world.model.patterns import KeyValue


@dataclass(frozen=True, slots=True)
class Rings:
    """K/V of some slots as a pass sees them: k, v per layer, `slot head frame token dim`.

    scales: for int8 K/V, the scales of keys and of values: per layer, float32 `slot frame token head`; K/V are then
    read in `dtype`. kernel_choice: which kernels attend to them.
    """

    config: TransformerConfig
    k: Sequence[Tensor]
    v: Sequence[Tensor]
    scales: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
    dtype: torch.dtype | None = None
    kernel_choice: KernelChoice = BY_RULE

    def frame_positions(self, chunks: Tensor) -> Tensor:
        """Return the frames of a slot in which chunks are stored: int64 `b` → `b chunk_frames`."""
        config = self.config
        ring = config.sink_chunks + (chunks - config.sink_chunks) % (config.window_chunks + 1)
        position = torch.where(chunks < config.sink_chunks, chunks, ring)
        return position[:, None] * config.chunk_frames + torch.arange(config.chunk_frames, device=chunks.device)

    def rows(self, slots: Tensor, chunks: Tensor) -> Tensor:
        """Return where one chunk of each slot is stored, as rows of a layer viewed as (slot head frame): int64 `b`, `b`
        → `b·n·chunk_frames`."""
        heads = slots[:, None] * self.config.num_heads + torch.arange(self.config.num_heads, device=slots.device)
        return (heads[:, :, None] * self.config.context_frames + self.frame_positions(chunks)[:, None]).flatten()

    def row_numbers(self, slots: Sequence[int], chunks: Sequence[int]) -> list[int]:
        """Return what `rows` does, computed without tensors: for a few slots that takes a fraction of the time."""
        config = self.config
        numbers: list[int] = []
        for slot, chunk in zip(slots, chunks, strict=True):
            in_ring = config.sink_chunks + (chunk - config.sink_chunks) % (config.window_chunks + 1)
            first_frame = (chunk if chunk < config.sink_chunks else in_ring) * config.chunk_frames
            for head in range(slot * config.num_heads, (slot + 1) * config.num_heads):
                row = head * config.context_frames + first_frame
                numbers.extend(range(row, row + config.chunk_frames))
        return numbers

    def write(self, layer: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        """Store K/V `b l n d` of one chunk per slot at `rows`."""
        frame = (self.config.tokens_per_frame, self.config.head_dim)
        for number, (cache, new) in enumerate(((self.k[layer], k), (self.v[layer], v))):
            by_head = new.transpose(1, 2).reshape(-1, *frame)  # (b n f) tokens d
            if self.scales is not None:
                by_head, scale = quantised(by_head)
                scales = self.scales[number][layer].permute(0, 3, 1, 2)  # slot head frame token
                scales[self._by_axis(rows)] = scale
            cache.flatten(0, 2).index_copy_(0, rows, by_head.to(cache.dtype))

    def _by_axis(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split rows into slots, heads and frames."""
        frames, heads = self.config.context_frames, self.config.num_heads
        return rows // (frames * heads), rows // frames % heads, rows % frames

    def read(self, layer: int, slots: Tensor | None = None) -> KeyValue:
        """Return all K/V `b l n d` of `slots` as a copy, or of all slots as a view (int8: as a copy)."""
        parts = []
        for number, cache in enumerate((self.k[layer], self.v[layer])):
            part = cache if slots is None else cache[slots]
            if self.scales is not None:
                scales = self.scales[number][layer]
                scale = (scales if slots is None else scales[slots]).permute(0, 3, 1, 2)[..., None]
                part = (part * scale).to(self.dtype)
            parts.append(_tokens(part))
        return parts[0], parts[1]

    def stored(self, layer: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return K/V as stored, for kernels: keys, values `s l n d` and their scales `s l n`, if any."""
        k, v = _tokens(self.k[layer]), _tokens(self.v[layer])
        if self.scales is None:
            return k, v, None, None
        keys, values = (scales[layer].flatten(1, 2) for scales in self.scales)
        return k, v, keys, values


def _tokens(cache: Tensor) -> Tensor:
    """View `s n f tokens d` as `s l n d`."""
    return cache.flatten(2, 3).transpose(1, 2)
