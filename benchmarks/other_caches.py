"""Two common kinds of cache as attention patterns of the same network, to compare the ring with.

`Concatenated`: the window's keys and values in one tensor per layer, oldest first. New ones are concatenated, the
window is rolled by copying, a mask says which chunk sees which, and rotation multiplies complex numbers (in complex64;
the code that made this pattern common uses complex128). `FlexRing`: a ring with room for one more chunk, so that clean
and noisy chunks are written together, and flex_attention with a block mask by the age of each position, built once per
pass. Both are for configs without a sink. Owns the patterns; knows no timing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from world.model.config import TransformerConfig
from world.model.patterns import Positions, Rotation
from world.rollout.cache import Arena
from world.rollout.rings import Rings


def window_of(arena: Arena, first_chunk: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return keys and values of the chunks before `first_chunk` (int64 `b`, of all slots), oldest first: `b l n d` per
    layer."""
    config = arena.config
    ages = torch.arange(-config.window_chunks, 0)
    chunks = first_chunk[:, None] + ages  # b w
    positions = arena.rings.frame_positions(chunks.flatten()).view(len(first_chunk), -1)  # b w·f
    slots = torch.arange(len(first_chunk))[:, None]

    def ordered(cache: Tensor) -> list[Tensor]:  # layer slot head frame token dim
        frames = cache.transpose(2, 3)[:, slots, positions]  # layer b w·f head token dim
        return [layer.transpose(2, 3).flatten(1, 2).contiguous() for layer in frames]

    return ordered(arena.k), ordered(arena.v)


@dataclass(slots=True)
class Concatenated:
    """k, v: per layer, replaced when a clean chunk is rolled in. first_chunk: int64 `b`. With two chunks the first is
    clean."""

    config: TransformerConfig
    k: list[Tensor]
    v: list[Tensor]
    first_chunk: Tensor
    num_chunks: int

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        return Positions(self.first_chunk[:, None] * self.config.chunk_frames + torch.arange(num_frames))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, None]:
        freqs = torch.complex(rotation.angles.cos, rotation.angles.sin)[:, :, None]
        q, k = (_rotated(qkv[:, :, i], w, freqs) for i, w in ((0, rotation.q_weight), (1, rotation.k_weight)))
        v = qkv[:, :, 2]
        keys, values = torch.cat([self.k[layer], k], dim=1), torch.cat([self.v[layer], v], dim=1)
        mask = None
        if self.num_chunks == 2:
            chunk = q.shape[1] // 2
            index = torch.arange(keys.shape[1])
            clean, noisy = index < keys.shape[1] - chunk, index >= chunk
            mask = torch.stack([clean, noisy]).repeat_interleave(chunk, 0)
            window = self.k[layer].shape[1]
            self.k[layer] = keys[:, chunk : chunk + window].clone()
            self.v[layer] = values[:, chunk : chunk + window].clone()
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
        )
        return out.transpose(1, 2), None


def flex_arena(arena: Arena, first_chunk: Tensor) -> Arena:
    """Return an arena with room for one more chunk, filled with the window before `first_chunk`."""
    config = replace(arena.config, window_frames=arena.config.window_frames + arena.config.chunk_frames)
    wider = Arena(config, arena.num_slots, dtype=arena.k.dtype)
    k, v = window_of(arena, first_chunk)
    for slot in range(arena.num_slots):
        oldest = int(first_chunk[slot]) - arena.config.window_chunks
        wider.load(slot, oldest, [(a[slot : slot + 1], b[slot : slot + 1]) for a, b in zip(k, v, strict=True)])
    return wider


@dataclass(frozen=True, slots=True)
class FlexRing:
    """k, v: per layer, `b n l d`, in rings of the wider config. rows, mask: of this pass."""

    config: TransformerConfig
    k: list[Tensor]
    v: list[Tensor]
    first_chunk: Tensor
    rows: Tensor
    mask: BlockMask

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        return Positions(self.first_chunk[:, None] * self.config.chunk_frames + torch.arange(num_frames))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, None]:
        q, k, _ = rotation.rotate(qkv)
        config = self.config
        by_frames = [cache.unflatten(2, (config.context_frames, -1)) for cache in (self.k[layer], self.v[layer])]
        Rings(config, by_frames[:1], by_frames[1:]).write(0, self.rows, k, qkv[:, :, 2])
        query = q.transpose(1, 2).contiguous()  # Inductor's flex_attention takes no five-dimensional views
        return flex_attention(query, self.k[layer], self.v[layer], block_mask=self.mask).transpose(1, 2), None


def flex_mask(
    config: TransformerConfig, first_chunk: Tensor, num_chunks: int, make: Callable[..., BlockMask] = create_block_mask
) -> BlockMask:
    """Build the mask of a pass from the chunk that each ring position holds once all are written. config: the wider."""
    ring, window = config.window_chunks + 1, config.window_chunks - 1
    newest = first_chunk + num_chunks - 1
    held = newest[:, None] - (newest[:, None] - torch.arange(ring)) % ring  # the chunk at each position, b ring
    chunk = config.chunk_frames * config.tokens_per_frame

    def sees(b: Tensor, _head: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        age = first_chunk[b] + q // chunk - held[b, kv // chunk]
        return (age >= 0) & (age <= window)

    return make(sees, len(first_chunk), None, num_chunks * chunk, ring * chunk, device="cpu")


def flex_rows(rings: Rings, first_chunk: Tensor, num_chunks: int) -> Tensor:
    """Return the rows of all chunks of a pass, written together (see `Rings.rows`)."""
    batch = first_chunk.shape[0]
    rows = [rings.rows(torch.arange(batch), first_chunk + number) for number in range(num_chunks)]
    return torch.cat([r.view(batch * rings.config.num_heads, -1) for r in rows], dim=1).flatten()


def _rotated(x: Tensor, weight: Tensor, freqs: Tensor) -> Tensor:
    """Apply RMS norm over `weight`'s dimensions, then multiply adjacent channels by complex numbers."""
    y = F.rms_norm(x.float(), weight.shape, weight.float(), 1e-6)
    pairs = torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * freqs).flatten(-2).to(x.dtype)
