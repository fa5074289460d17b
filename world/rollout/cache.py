"""The key/value arena: one preallocated ring per slot. Owns K/V memory and ring positions; knows no model and no noise.

Layout `layer slot head frame token dim`: a head's keys lie together, or a product with them would copy them first. A
slot holds its sink in pinned frames, then a ring of window + 1 chunks.
Chunk i ≥ sink lives at ring place (i − sink) mod (window + 1): while chunk i is being denoised it writes into the
place of chunk i − window − 1, which it may no longer see. So every key in a full slot is visible, attention is dense
over the slot, and nothing is masked, rolled or concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.attention import attention
from kernels.dispatch import triton_runs
from kernels.qk_norm_rope_write import qk_norm_rope_write, quantised
from kernels.ring_attention import ring_attention
from kernels.write_attend import applies, write_attend
from world.errors import PatternError
from world.model.config import TransformerConfig
from world.model.patterns import KeyValue, Positions, Rotation, sink_positions


@dataclass(frozen=True, slots=True)
class Rings:
    """K/V of some slots as a pass sees them: k, v of each layer, `slot head frame token dim`.

    scales: where K/V are int8, those of keys and of values: by layer, float32 `slot frame token head`; they are then
    read in `dtype`.
    """

    config: TransformerConfig
    k: Sequence[Tensor]
    v: Sequence[Tensor]
    scales: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
    dtype: torch.dtype | None = None

    def frame_places(self, chunks: Tensor) -> Tensor:
        """A slot's frames in which chunks live: int64 `b` → `b chunk_frames`."""
        config = self.config
        ring = config.sink_chunks + (chunks - config.sink_chunks) % (config.window_chunks + 1)
        place = torch.where(chunks < config.sink_chunks, chunks, ring)
        return place[:, None] * config.chunk_frames + torch.arange(config.chunk_frames, device=chunks.device)

    def rows(self, slots: Tensor, chunks: Tensor) -> Tensor:
        """Where a chunk of each slot lives, as rows of a layer's heads' frames: int64 `b`, `b` → `b·n·chunk_frames`."""
        heads = slots[:, None] * self.config.num_heads + torch.arange(self.config.num_heads, device=slots.device)
        return (heads[:, :, None] * self.config.context_frames + self.frame_places(chunks)[:, None]).flatten()

    def write(self, layer: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        """Store K/V `b l n d` of one chunk of each slot, at `rows`."""
        frame = (self.config.tokens_per_frame, self.config.head_dim)
        for number, (cache, new) in enumerate(((self.k[layer], k), (self.v[layer], v))):
            by_head = new.transpose(1, 2).reshape(-1, *frame)  # (b n f) tokens d
            if self.scales is not None:
                by_head, scale = quantised(by_head)
                scales = self.scales[number][layer].permute(0, 3, 1, 2)  # slot head frame token
                scales[self._by_axis(rows)] = scale
            cache.flatten(0, 2).index_copy_(0, rows, by_head.to(cache.dtype))

    def _by_axis(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slots, heads and frames of rows."""
        frames, heads = self.config.context_frames, self.config.num_heads
        return rows // (frames * heads), rows // frames % heads, rows % frames

    def read(self, layer: int, slots: Tensor | None = None) -> KeyValue:
        """All K/V of `slots`, `b l n d`: a copy; or of all slots: a view, or where they are int8, a copy."""
        found = []
        for number, cache in enumerate((self.k[layer], self.v[layer])):
            kept = cache if slots is None else cache[slots]
            if self.scales is not None:
                scales = self.scales[number][layer]
                scale = (scales if slots is None else scales[slots]).permute(0, 3, 1, 2)[..., None]
                kept = (kept * scale).to(self.dtype)
            found.append(_tokens(kept))
        return found[0], found[1]

    def stored(self, layer: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """As it is kept, for kernels: keys, values `s l n d` and their scales `s l n`, if any."""
        k, v = _tokens(self.k[layer]), _tokens(self.v[layer])
        if self.scales is None:
            return k, v, None, None
        keys, values = (scales[layer].flatten(1, 2) for scales in self.scales)
        return k, v, keys, values


class Arena:
    """K/V of `num_slots` slots, read in `dtype`. Every slot is filled whole (`load`) before it is read.

    int8: kept in 8 bit with a scale for each token and head, in (d + 4)/2d of the memory that 16 bit take.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_slots: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        int8: bool = False,
    ) -> None:
        self.config = config
        self.num_slots = num_slots
        frames = (config.context_frames, config.tokens_per_frame)
        shape = (config.num_layers, num_slots, config.num_heads, *frames, config.head_dim)
        kept = torch.int8 if int8 else dtype
        self.k = torch.zeros(shape, dtype=kept, device=device)
        self.v = torch.zeros(shape, dtype=kept, device=device)
        self.tensors = [self.k, self.v]
        scales = None
        if int8:
            by_token = (config.num_layers, num_slots, *frames, config.num_heads)
            of_keys, of_values = (torch.zeros(by_token, device=device) for _ in range(2))
            self.tensors += [of_keys, of_values]
            scales = of_keys.unbind(0), of_values.unbind(0)
        self.rings = Rings(config, self.k.unbind(0), self.v.unbind(0), scales, dtype)

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def neighbours(self, first: int, num: int) -> Rings:
        """Views of `num` slots from `first` on."""
        k, v, *scales = ([layer[first : first + num] for layer in tensor.unbind(0)] for tensor in self.tensors)
        return replace(self.rings, k=k, v=v, scales=(scales[0], scales[1]) if scales else None)

    def load(self, slot: int, first_chunk: int, kv: list[KeyValue]) -> None:
        """Store consecutive chunks of one session, K/V `1 l n d` per layer, from `first_chunk` on."""
        rings, length = self.neighbours(slot, 1), self.config.chunk_frames * self.config.tokens_per_frame
        for layer, (k, v) in enumerate(kv):
            for number in range(k.shape[1] // length):
                part = slice(number * length, (number + 1) * length)
                rows = rings.rows(torch.zeros(1, dtype=torch.int64), torch.tensor([first_chunk + number]))
                rings.write(layer, rows.to(k.device), k[:, part], v[:, part])

    def copy_out(self, slot: int) -> tuple[Tensor, ...]:
        return tuple(tensor[:, slot].clone() for tensor in self.tensors)

    def copy_in(self, slot: int, kv: tuple[Tensor, ...]) -> None:
        for tensor, copied in zip(self.tensors, kv, strict=True):
            tensor[:, slot].copy_(copied)


@dataclass(frozen=True, slots=True)
class ArenaPattern:
    """Consecutive chunks of several slots, each written before it attends.

    With two chunks in the sequence, the first (clean: a commit) writes and attends before the second (noisy: the next
    chunk's first denoise) writes, so clean never sees noisy. slots: int64 `b`, the batch's places in `rings`.
    first_chunk: int64 `b`, the index of each one's first chunk in this pass. rows: of each chunk in the sequence, where
    it is written. whole: whether the batch is all of the rings in their order, so that nothing need be copied to read.
    """

    rings: Rings
    slots: Tensor
    first_chunk: Tensor
    rows: tuple[Tensor, ...]
    whole: bool

    @staticmethod
    def of(arena: Arena, slots: list[int], first_chunk: Tensor, num_chunks: int = 1) -> ArenaPattern:
        """For slots of an arena, by views of it where they are neighbours."""
        if are_neighbours(slots):
            return ArenaPattern.all_of(arena.neighbours(slots[0], len(slots)), first_chunk, num_chunks)
        return ArenaPattern.anywhere(
            arena.rings, torch.tensor(slots, device=first_chunk.device), first_chunk, num_chunks
        )

    @staticmethod
    def all_of(rings: Rings, first_chunk: Tensor, num_chunks: int = 1) -> ArenaPattern:
        """For all slots of the rings, in their order."""
        slots = torch.arange(first_chunk.shape[0], device=first_chunk.device)
        return replace(ArenaPattern.anywhere(rings, slots, first_chunk, num_chunks), whole=True)

    @staticmethod
    def anywhere(rings: Rings, slots: Tensor, first_chunk: Tensor, num_chunks: int = 1) -> ArenaPattern:
        """Without a look at which slots they are, so that a device that is told once need not be asked."""
        rows = tuple(rings.rows(slots, first_chunk + number) for number in range(num_chunks))
        return ArenaPattern(rings, slots, first_chunk, rows, whole=False)

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        config = self.rings.config
        if num_frames != len(self.rows) * config.chunk_frames:
            raise PatternError(
                f"{len(self.rows)} chunks of {config.chunk_frames} frames met a sequence of {num_frames}"
            )
        frames = self.first_chunk[:, None] * config.chunk_frames + torch.arange(num_frames, device=device)
        return Positions(frames, sink_positions(frames, config))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, None]:
        """The attended values; keys and values stay in the arena."""
        if triton_runs(qkv):
            return torch.cat(self._attend_fused(layer, qkv, rotation), dim=1), None
        return self.attend_rotated(layer, *rotation.rotate(qkv), qkv[:, :, 2]), None

    def attend_rotated(self, layer: int, q: Tensor, k: Tensor, q_sink: Tensor | None, v: Tensor) -> Tensor:
        """`attend` from queries and keys that are normalised and rotated, `b l n d` each."""
        if applies(q, self.rings.k[layer]):
            return write_attend(
                q,
                k,
                v,
                self.rings.k[layer],
                self.rings.v[layer],
                self.rows,
                q_sink=q_sink,
                num_sink=self.num_sink,
            )
        parts = []
        for part, rows in zip(self._parts(), self.rows, strict=True):
            self.rings.write(layer, rows, k[:, part], v[:, part])
            keys, values = self.rings.read(layer, None if self.whole else self.slots)
            sink = None if q_sink is None else q_sink[:, part]
            parts.append(attention(q[:, part], keys, values, q_sink=sink, num_sink=self.num_sink))
        return torch.cat(parts, dim=1)

    def _attend_fused(self, layer: int, qkv: Tensor, rotation: Rotation) -> list[Tensor]:
        keys, values, key_scales, value_scales = self.rings.stored(layer)
        slots, num_valid = self.slots.int(), torch.full_like(self.slots, keys.shape[1], dtype=torch.int32)
        parts = []
        for part, rows in zip(self._parts(), self.rows, strict=True):
            place = rows.view(len(slots), -1)[:, 0] % self.rings.config.context_frames  # of the chunk's first frame
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
                (place * self.rings.config.tokens_per_frame).int(),
                key_scales=key_scales,
                value_scales=value_scales,
                sink_cos=None if sink is None else sink.cos,
                sink_sin=None if sink is None else sink.sin,
            )
            attended, _ = ring_attention(
                query,
                keys,
                values,
                slots,
                num_valid,
                q_sink=sink_query,
                num_sink=self.num_sink,
                key_scales=key_scales,
                value_scales=value_scales,
            )
            parts.append(attended)
        return parts

    @property
    def num_sink(self) -> int:
        """Tokens of the sink."""
        return self.rings.config.sink_frames * self.rings.config.tokens_per_frame

    def _parts(self) -> list[slice]:
        """The sequence's chunks, as slices of its tokens."""
        length = self.rings.config.chunk_frames * self.rings.config.tokens_per_frame
        return [slice(number * length, (number + 1) * length) for number in range(len(self.rows))]


def _tokens(cache: Tensor) -> Tensor:
    """`s n f tokens d` → a view `s l n d`."""
    return cache.flatten(2, 3).transpose(1, 2)


def are_neighbours(slots: list[int]) -> bool:
    return slots == list(range(slots[0], slots[0] + len(slots)))
