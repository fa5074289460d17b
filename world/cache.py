"""The key/value arena: one preallocated ring per slot. Owns K/V memory and ring positions; knows no model and no noise.

Layout `layer slot head frame token dim`: a head's keys lie together, or a product with them would copy them first. A
slot holds its sink in pinned frames, then a ring of window + 1 chunks.
Chunk i ≥ sink lives at ring place (i − sink) mod (window + 1): while chunk i is being denoised it writes into the
place of chunk i − window − 1, which it may no longer see. So every key in a full slot is visible, attention is dense
over the slot, and nothing is masked, rolled or concatenated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.attention import attention
from kernels.choice import triton_runs
from kernels.qk_norm_rope_write import qk_norm_rope_write
from kernels.ring_attention import ring_attention
from world.config import TransformerConfig
from world.context import KeyValue, Positions, Rotation, sink_positions
from world.errors import PatternError


class Arena:
    """K/V of `num_slots` slots. Every slot is filled whole (`load`) before it is read."""

    def __init__(
        self, config: TransformerConfig, num_slots: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        self.num_slots = num_slots
        self.capacity_frames = config.context_frames
        self.sink_tokens = config.sink_frames * config.tokens_per_frame
        shape = (
            config.num_layers,
            num_slots,
            config.num_heads,
            self.capacity_frames,
            config.tokens_per_frame,
            config.head_dim,
        )
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    def frame_places(self, chunks: Tensor) -> Tensor:
        """Arena frames of chunks: int64 `b` → `b chunk_frames`."""
        config = self.config
        ring = config.sink_chunks + (chunks - config.sink_chunks) % (config.window_chunks + 1)
        place = torch.where(chunks < config.sink_chunks, chunks, ring)
        return place[:, None] * config.chunk_frames + torch.arange(config.chunk_frames, device=chunks.device)

    def rows(self, slots: Tensor, chunks: Tensor) -> Tensor:
        """Where a chunk of each slot lives, as rows of a layer's heads' frames: int64 `b`, `b` → `b·n·chunk_frames`."""
        heads = slots[:, None] * self.config.num_heads + torch.arange(self.config.num_heads, device=slots.device)
        return (heads[:, :, None] * self.capacity_frames + self.frame_places(chunks)[:, None]).flatten()

    def write(self, layer: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        """Store K/V `b l n d` of one chunk of each slot, at `rows`."""
        frame = (self.config.tokens_per_frame, self.config.head_dim)
        for cache, new in ((self.k, k), (self.v, v)):
            by_head = new.transpose(1, 2).reshape(-1, *frame)  # (b n f) tokens d
            cache[layer].flatten(0, 2).index_copy_(0, rows, by_head.to(cache.dtype))

    def load(self, slot: int, first_chunk: int, kv: list[KeyValue]) -> None:
        """Store consecutive chunks of one session, K/V `1 l n d` per layer, from `first_chunk` on."""
        config = self.config
        num = kv[0][0].shape[1] // (config.chunk_frames * config.tokens_per_frame)
        chunks = torch.arange(first_chunk, first_chunk + num)
        places = self.frame_places(chunks).flatten()
        for layer, (k, v) in enumerate(kv):
            for cache, new in ((self.k, k), (self.v, v)):
                by_head = new[0].transpose(0, 1).unflatten(1, (len(places), -1))  # n f tokens d
                cache[layer, slot][:, places] = by_head.to(cache.dtype)

    def read(self, layer: int, slots: Tensor, contiguous: slice | None) -> KeyValue:
        """All K/V of `slots`, `b l n d`: a view where the slots are neighbours, else a copy."""
        rows = contiguous if contiguous is not None else slots
        return _tokens(self.k[layer, rows]), _tokens(self.v[layer, rows])

    def copy_out(self, slot: int) -> tuple[Tensor, Tensor]:
        return self.k[:, slot].clone(), self.v[:, slot].clone()

    def copy_in(self, slot: int, k: Tensor, v: Tensor) -> None:
        self.k[:, slot].copy_(k)
        self.v[:, slot].copy_(v)


@dataclass(frozen=True, slots=True)
class ArenaContext:
    """Consecutive chunks of several slots, each written before it attends.

    first_chunk: int64 `b`, the index of each slot's first chunk in this pass. With two chunks in the sequence, the
    first (clean: a commit) writes and attends before the second (noisy: the next chunk's first denoise) writes, so
    clean never sees noisy. slots: int64 `b`. rows: of each chunk in the sequence, where it is written.
    """

    arena: Arena
    slots: Tensor
    first_chunk: Tensor
    rows: tuple[Tensor, ...]
    contiguous: slice | None

    @staticmethod
    def of(arena: Arena, slots: list[int], first_chunk: Tensor, num_chunks: int = 1) -> ArenaContext:
        neighbours = slots == list(range(slots[0], slots[0] + len(slots)))
        contiguous = slice(slots[0], slots[0] + len(slots)) if neighbours else None
        index = torch.tensor(slots, device=first_chunk.device)
        return replace(ArenaContext.anywhere(arena, index, first_chunk, num_chunks), contiguous=contiguous)

    @staticmethod
    def anywhere(arena: Arena, slots: Tensor, first_chunk: Tensor, num_chunks: int = 1) -> ArenaContext:
        """Without a look at which slots they are, so that a device that is told once need not be asked."""
        rows = tuple(arena.rows(slots, first_chunk + number) for number in range(num_chunks))
        return ArenaContext(arena, slots, first_chunk, rows, None)

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        config = self.arena.config
        if num_frames != len(self.rows) * config.chunk_frames:
            raise PatternError(
                f"{len(self.rows)} chunks of {config.chunk_frames} frames met a sequence of {num_frames}"
            )
        frames = self.first_chunk[:, None] * config.chunk_frames + torch.arange(num_frames, device=device)
        return Positions(frames, sink_positions(frames, config))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, None]:
        """The attended values; keys and values stay in the arena."""
        attend = self._attend_fused if triton_runs(qkv) else self._attend
        return torch.cat(attend(layer, qkv, rotation), dim=1), None

    def _attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> list[Tensor]:
        (q, k, q_sink), v = rotation.rotate(qkv), qkv[:, :, 2]
        parts = []
        for part, rows in zip(self._parts(), self.rows, strict=True):
            self.arena.write(layer, rows, k[:, part], v[:, part])
            keys, values = self.arena.read(layer, self.slots, self.contiguous)
            sink = None if q_sink is None else q_sink[:, part]
            parts.append(attention(q[:, part], keys, values, q_sink=sink, num_sink=self.arena.sink_tokens))
        return parts

    def _attend_fused(self, layer: int, qkv: Tensor, rotation: Rotation) -> list[Tensor]:
        keys, values = _tokens(self.arena.k[layer]), _tokens(self.arena.v[layer])
        slots, num_valid = self.slots.int(), torch.full_like(self.slots, keys.shape[1], dtype=torch.int32)
        parts = []
        for part, rows in zip(self._parts(), self.rows, strict=True):
            place = rows.view(len(slots), -1)[:, 0] % self.arena.capacity_frames  # of the chunk's first frame
            angles, sink = rotation.angles.part(part), None if rotation.sink is None else rotation.sink.part(part)
            q, k, v = qkv[:, part].unbind(2)
            query, sink_query = qk_norm_rope_write(
                q,
                k,
                v,
                rotation.q_weight,
                rotation.k_weight,
                angles.cos,
                angles.sin,
                keys,
                values,
                slots,
                (place * self.arena.config.tokens_per_frame).int(),
                sink_cos=None if sink is None else sink.cos,
                sink_sin=None if sink is None else sink.sin,
            )
            num_sink = self.arena.sink_tokens
            parts.append(ring_attention(query, keys, values, slots, num_valid, q_sink=sink_query, num_sink=num_sink)[0])
        return parts

    def _parts(self) -> list[slice]:
        """The sequence's chunks, as slices of its tokens."""
        length = self.arena.config.chunk_frames * self.arena.config.tokens_per_frame
        return [slice(number * length, (number + 1) * length) for number in range(len(self.rows))]


def _tokens(cache: Tensor) -> Tensor:
    """`s n f tokens d` → a view `s l n d`."""
    return cache.flatten(2, 3).transpose(1, 2)
