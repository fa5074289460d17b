"""The key/value arena: one preallocated ring per slot. Owns K/V memory and how a pass attends to it; knows no model and
no noise.

Layout `layer slot head frame token dim`: a head's keys are contiguous, otherwise each product with them would copy them
first. While chunk i is being denoised it overwrites chunk i − window − 1 of its ring (see `rings`), which it may no
longer see. So every key in a full slot is visible, attention is dense over the slot, and nothing is masked, rolled or
concatenated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.attention import attention
from kernels.dispatch import BY_RULE, KernelChoice, triton_runs
from kernels.qk_norm_rope_write import qk_norm_rope_write
from kernels.ring_attention import ring_attention
from kernels.write_attend import applies, write_attend
from world.errors import PatternError, ShapeError
from world.model.config import TransformerConfig
from world.model.patterns import KeyValue, Positions, Rotation, sink_positions
from world.rollout.rings import Rings


class Arena:
    """K/V of `num_slots` slots, read in `dtype`. A slot is filled completely (`load`) before it is read.

    int8: store 8 bits with one scale per token and head, in (d + 4)/2d of the memory of 16 bits.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_slots: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        int8: bool = False,
        kernel_choice: KernelChoice = BY_RULE,
    ) -> None:
        self.config = config
        self.num_slots = num_slots
        frames = (config.context_frames, config.tokens_per_frame)
        shape = (config.num_layers, num_slots, config.num_heads, *frames, config.head_dim)
        stored_dtype = torch.int8 if int8 else dtype
        self.k = torch.zeros(shape, dtype=stored_dtype, device=device)
        self.v = torch.zeros(shape, dtype=stored_dtype, device=device)
        self.tensors = [self.k, self.v]
        scales = None
        if int8:
            by_token = (config.num_layers, num_slots, *frames, config.num_heads)
            key_scales, value_scales = (torch.zeros(by_token, device=device) for _ in range(2))
            self.tensors += [key_scales, value_scales]
            scales = key_scales.unbind(0), value_scales.unbind(0)
        self.rings = Rings(config, self.k.unbind(0), self.v.unbind(0), scales, dtype, kernel_choice)
        self._views: dict[tuple[int, int], list[list[Tensor]]] = {}

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def adjacent(self, first: int, num: int) -> Rings:
        """Return views of `num` slots from `first` on. They are made once, since every pass needs them."""
        views = self._views.get((first, num))
        if views is None:
            with torch.inference_mode(False), torch.no_grad():  # so that they can be used in every mode
                views = [[layer[first : first + num] for layer in tensor.unbind(0)] for tensor in self.tensors]
            self._views[first, num] = views
        k, v, *scales = views
        return replace(self.rings, k=k, v=v, scales=(scales[0], scales[1]) if scales else None)

    def load(self, slot: int, first_chunk: int, kv: list[KeyValue]) -> None:
        """Store consecutive chunks of one session from `first_chunk` on: K/V `1 l n d` per layer."""
        rings, length = self.adjacent(slot, 1), self.config.chunk_frames * self.config.tokens_per_frame
        for layer, (k, v) in enumerate(kv):
            for number in range(k.shape[1] // length):
                part = slice(number * length, (number + 1) * length)
                rows = rings.rows(torch.zeros(1, dtype=torch.int64), torch.tensor([first_chunk + number]))
                rings.write(layer, rows.to(k.device), k[:, part], v[:, part])

    def copy_out(self, slot: int) -> tuple[Tensor, ...]:
        return tuple(tensor[:, slot].clone() for tensor in self.tensors)

    def check(self, kv: tuple[Tensor, ...]) -> None:
        """Raise ShapeError unless `copy_in` can take this K/V; another number of bits per value is no obstacle."""
        expected = [(*tensor.shape[:1], *tensor.shape[2:]) for tensor in self.tensors]
        is_integer = [not tensor.is_floating_point() for tensor in self.tensors]
        if [tuple(tensor.shape) for tensor in kv] != expected or is_integer != [
            not tensor.is_floating_point() for tensor in kv
        ]:
            raise ShapeError(f"K/V are {[(str(part.dtype), tuple(part.shape)) for part in kv]}, expected {expected}")
        if not all(bool(tensor.isfinite().all()) for tensor in kv):
            raise ShapeError("K/V are not all finite; save the session again")

    def copy_in(self, slot: int, kv: tuple[Tensor, ...]) -> None:
        for tensor, copied in zip(self.tensors, kv, strict=True):
            tensor[:, slot].copy_(copied)


@dataclass(frozen=True, slots=True)
class ArenaPattern:
    """Consecutive chunks of several slots, each written before it attends.

    With two chunks in the sequence, the first (clean: a commit) writes and attends before the second (noisy: the next
    chunk's first denoise) writes, so clean never sees noisy. slots: int64 `b`, each row's slot in `rings`.
    first_chunk: int64 `b`, the index of each row's first chunk in this pass. rows: for each chunk of the sequence,
    where it is written. all_slots: whether the batch is all slots of `rings` in order, so that reading needs no copy.
    on_layer: called in each layer.
    """

    rings: Rings
    slots: Tensor
    first_chunk: Tensor
    rows: tuple[Tensor, ...]
    all_slots: bool
    on_layer: Callable[[], None] = lambda: None

    @staticmethod
    def of(
        arena: Arena,
        slots: Sequence[int],
        first_chunks: Sequence[int],
        num_chunks: int = 1,
        *,
        on_layer: Callable[[], None] = lambda: None,
    ) -> ArenaPattern:
        """Make the pattern for slots of an arena, with the index of each row's first chunk; adjacent slots are read as
        views."""
        rings, device, all_slots = arena.rings, arena.k.device, are_adjacent(slots)
        if all_slots:
            rings, slots = arena.adjacent(slots[0], len(slots)), range(len(slots))
        rows = tuple(
            torch.tensor(rings.row_numbers(slots, [first + number for first in first_chunks]), device=device)
            for number in range(num_chunks)
        )
        slot_index, first_chunk = (torch.tensor(list(numbers), device=device) for numbers in (slots, first_chunks))
        return ArenaPattern(rings, slot_index, first_chunk, rows, all_slots, on_layer)

    @staticmethod
    def all_of(rings: Rings, first_chunk: Tensor, num_chunks: int = 1) -> ArenaPattern:
        """Make the pattern for all slots of the rings, in order."""
        slots = torch.arange(first_chunk.shape[0], device=first_chunk.device)
        return replace(ArenaPattern.anywhere(rings, slots, first_chunk, num_chunks), all_slots=True)

    @staticmethod
    def anywhere(rings: Rings, slots: Tensor, first_chunk: Tensor, num_chunks: int = 1) -> ArenaPattern:
        """Make the pattern without reading the values of `slots`, so that they can stay on the device."""
        rows = tuple(rings.rows(slots, first_chunk + number) for number in range(num_chunks))
        return ArenaPattern(rings, slots, first_chunk, rows, all_slots=False)

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        config = self.rings.config
        if num_frames != len(self.rows) * config.chunk_frames:
            raise PatternError(
                f"a pattern of {len(self.rows)} chunks of {config.chunk_frames} frames was used for a sequence of "
                f"{num_frames}"
            )
        frames = self.first_chunk[:, None] * config.chunk_frames + torch.arange(num_frames, device=device)
        return Positions(frames, sink_positions(frames, config))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, None]:
        """Attend; keys and values stay in the arena."""
        if triton_runs(qkv):
            return torch.cat(self._attend_fused(layer, qkv, rotation), dim=1), None
        return self.attend_rotated(layer, *rotation.rotate(qkv), qkv[:, :, 2]), None

    def attend_rotated(self, layer: int, q: Tensor, k: Tensor, q_sink: Tensor | None, v: Tensor) -> Tensor:
        """Attend with queries and keys that are already normalised and rotated, `b l n d` each."""
        self.on_layer()
        rings = self.rings
        if applies(q, rings.k[layer], rings.kernel_choice):
            return write_attend(
                q,
                k,
                v,
                rings.k[layer],
                rings.v[layer],
                self.rows,
                q_sink=q_sink,
                num_sink=self.num_sink,
            )
        parts = []
        for part, rows in zip(self._parts(), self.rows, strict=True):
            rings.write(layer, rows, k[:, part], v[:, part])
            keys, values = rings.read(layer, None if self.all_slots else self.slots)
            sink, num_sink = None if q_sink is None else q_sink[:, part], self.num_sink
            parts.append(
                attention(q[:, part], keys, values, q_sink=sink, num_sink=num_sink, choice=rings.kernel_choice)
            )
        return torch.cat(parts, dim=1)

    def _attend_fused(self, layer: int, qkv: Tensor, rotation: Rotation) -> list[Tensor]:
        keys, values, key_scales, value_scales = self.rings.stored(layer)
        slots, num_valid = self.slots.int(), torch.full_like(self.slots, keys.shape[1], dtype=torch.int32)
        parts = []
        for part, rows in zip(self._parts(), self.rows, strict=True):
            first_frame = rows.view(len(slots), -1)[:, 0] % self.rings.config.context_frames
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
                (first_frame * self.rings.config.tokens_per_frame).int(),
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
        """Return the sequence's chunks as slices of its tokens."""
        length = self.rings.config.chunk_frames * self.rings.config.tokens_per_frame
        return [slice(number * length, (number + 1) * length) for number in range(len(self.rows))]


def are_adjacent(slots: Sequence[int]) -> bool:
    """Return whether these are consecutive slots in ascending order."""
    return list(slots) == list(range(slots[0], slots[0] + len(slots)))
