"""Attention patterns: which frame sees which, and where keys come from. Owns masks and positions; owns no weights.

The `AttentionPattern` alone makes a forward pass bidirectional, teacher-forced, banded or cached; the transformer does
not know which it is. The causal patterns are those of a student with chunks, a window and a sink: clean chunk i sees
clean chunks i−W … i and the sink; noisy chunk i sees clean i−W … i−1, the sink and itself. For sink keys, queries are
rotated to position sink + window at most, so that the distance to the sink stays bounded (`sink_positions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from kernels.attention import attention
from kernels.dispatch import BY_RULE, KernelChoice
from kernels.norm_rope import norm_rope, qk_norm_rope
from world.errors import PatternError
from world.model.config import TransformerConfig
from world.model.rotary import Angles

KeyValue = tuple[Tensor, Tensor]
"""Keys (rotated) and values of one layer: `b l n d` each."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Frame indices of the sequence's frames, int64 `b f`; sink: the same for queries against sink keys."""

    frames: Tensor
    sink: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """Normalisation and rotation of a layer's queries and keys: RMS norm, then rotation by each token's angles.

    sink: angles of queries against sink keys. q_weight, k_weight: the norms' weights, `d` (per head) or `n d`.
    """

    angles: Angles
    sink: Angles | None
    q_weight: Tensor
    k_weight: Tensor

    def rotate(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return query, key and query for sink keys, `b l n d` each, normalised and rotated, from raw `b l 3 n d`."""
        q, k = qk_norm_rope(qkv[:, :, :2], self.q_weight, self.k_weight, self.angles.cos, self.angles.sin)
        if self.sink is None:
            return q, k, None
        return q, k, norm_rope(qkv[:, :, 0], self.q_weight, self.sink.cos, self.sink.sin)


class AttentionPattern(Protocol):
    """What a forward pass attends to."""

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        """Return the time indices of the sequence's frames."""
        ...

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue | None]:
        """Attend: raw queries, keys, values `b l 3 n d` → attended values `b l n d`, and the sequence's own K/V, or
        None if the pattern stores them itself."""
        ...


def sink_positions(frames: Tensor, config: TransformerConfig) -> Tensor | None:
    """Return min(chunk start, sink + window) + offset in the chunk, for frame indices of any shape; None if no sink."""
    if config.sink_frames == 0:
        return None
    offset = frames % config.chunk_frames
    return (frames - offset).clamp(max=config.sink_frames + config.window_frames) + offset


@dataclass(frozen=True, slots=True)
class Bidirectional:
    """Every frame sees every frame: teacher and critic."""

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        return Positions(torch.arange(num_frames, device=device).expand(batch, -1))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue]:
        (q, k, _), v = rotation.rotate(qkv), qkv[:, :, 2]
        return attention(q, k, v), (k, v)


@dataclass(frozen=True, slots=True)
class Banded:
    """Clean frames only, each chunk seeing itself, its window and the sink: prefill and replay.

    frames: the indices of the sequence's frames, shared by the batch: whole chunks in ascending order; if there is a
    sink, its frames come first.
    """

    config: TransformerConfig
    frames: tuple[int, ...]
    kernel_choice: KernelChoice = BY_RULE

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        if num_frames != len(self.frames):
            raise PatternError(f"a pattern of {len(self.frames)} frames was used for a sequence of {num_frames}")
        frames = torch.tensor(self.frames, dtype=torch.int64, device=device).expand(batch, -1)
        return Positions(frames, sink_positions(frames, self.config))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue]:
        (q, k, q_sink), v = rotation.rotate(qkv), qkv[:, :, 2]
        mask = _tokens(clean_sees_clean(torch.tensor(self.frames, device=q.device), self.config), self.config)
        num_sink = self.config.sink_frames * self.config.tokens_per_frame
        attended = attention(q, k, v, mask=mask, q_sink=q_sink, num_sink=num_sink, choice=self.kernel_choice)
        return attended, (k, v)


@dataclass(frozen=True, slots=True)
class BandedPart:
    """Some of the frames of `Banded`, after those before them: the same values in several passes.

    frames: the indices of the sequence's frames. past_frames, past: of the frames before, those that can still be seen
    (the sink first), and their K/V per layer.
    """

    config: TransformerConfig
    past_frames: tuple[int, ...] = ()
    past: Sequence[KeyValue] = ()
    frames: tuple[int, ...] = ()
    kernel_choice: KernelChoice = BY_RULE

    def followed_by(self, frames: tuple[int, ...]) -> BandedPart:
        """Return the pattern for the next frames, whole chunks in ascending order."""
        return replace(self, frames=frames)

    def with_own(self, kv: Sequence[KeyValue]) -> BandedPart:
        """Return the pattern whose past includes the sequence, with the K/V that its pass has returned."""
        index = (*self.past_frames, *self.frames)
        num_sink = sum(frame < self.config.sink_frames for frame in index[: self.config.sink_frames])
        first = max(num_sink, len(index) - self.config.window_frames)
        sink, rest = num_sink * self.config.tokens_per_frame, first * self.config.tokens_per_frame
        joined = self._joined(kv)
        seen = [tuple(torch.cat([part[:, :sink], part[:, rest:]], dim=1) for part in layer) for layer in joined]
        past = [(keys, values) for keys, values in seen]
        return replace(self, past_frames=(*index[:num_sink], *index[first:]), past=past, frames=())

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        return Banded(self.config, self.frames).positions(batch, num_frames, device)

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue]:
        (q, k, q_sink), v = rotation.rotate(qkv), qkv[:, :, 2]
        own = torch.tensor(self.frames, device=q.device)
        seen = torch.tensor((*self.past_frames, *self.frames), device=q.device)
        mask = _tokens(clean_sees_clean(own, self.config, seen), self.config)
        num_sink = sum(frame < self.config.sink_frames for frame in (*self.past_frames, *self.frames))
        keys, values = self._joined([(k, v)], layer)[0]
        choice = self.kernel_choice
        sink_tokens = num_sink * self.config.tokens_per_frame
        return attention(q, keys, values, mask=mask, q_sink=q_sink, num_sink=sink_tokens, choice=choice), (k, v)

    def _joined(self, kv: Sequence[KeyValue], first_layer: int = 0) -> list[KeyValue]:
        """Return the K/V of the past followed by these, for the layers from `first_layer` on."""
        if not self.past:
            return list(kv)
        past = self.past[first_layer : first_layer + len(kv)]
        return [
            (torch.cat([k, own_k], dim=1), torch.cat([v, own_v], dim=1))
            for (k, v), (own_k, own_v) in zip(past, kv, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class TeacherForcing:
    """The sequence [clean; noisy] of the same `num_frames` frames: all chunks of a causal student in one pass.

    Both halves have the same positions. The clean half attends as in `Banded`; a noisy chunk sees the clean chunks
    before it within the window, the sink, and itself.
    """

    config: TransformerConfig
    num_frames: int

    def __post_init__(self) -> None:
        if self.num_frames % self.config.chunk_frames:
            raise PatternError(f"{self.num_frames} frames are not whole chunks of {self.config.chunk_frames}")

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        if num_frames != 2 * self.num_frames:
            raise PatternError(f"[clean; noisy] of {self.num_frames} frames was used for a sequence of {num_frames}")
        frames = torch.arange(self.num_frames, device=device).repeat(2).expand(batch, -1)
        return Positions(frames, sink_positions(frames, self.config))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue]:
        (q, k, q_sink), v = rotation.rotate(qkv), qkv[:, :, 2]
        half = q.shape[1] // 2
        num_sink = self.config.sink_frames * self.config.tokens_per_frame
        frames = torch.arange(self.num_frames, device=q.device)
        clean_mask = _tokens(clean_sees_clean(frames, self.config), self.config)
        noisy_mask = _tokens(noisy_sees_clean(frames, self.config), self.config)
        sinks = (None, None) if q_sink is None else (q_sink[:, :half], q_sink[:, half:])
        clean = attention(q[:, :half], k[:, :half], v[:, :half], mask=clean_mask, q_sink=sinks[0], num_sink=num_sink)
        noisy = attention(
            q[:, half:],
            k[:, :half],
            v[:, :half],
            mask=noisy_mask,
            q_sink=sinks[1],
            num_sink=num_sink,
            own=(k[:, half:], v[:, half:], self.config.chunk_frames * self.config.tokens_per_frame),
        )
        return torch.cat([clean, noisy], dim=1), (k, v)


@dataclass(frozen=True, slots=True)
class Continuation:
    """One chunk after cached clean chunks, without in-place writes: rollouts under autograd.

    past: per layer, keys and values of sink and window, oldest first. first_frame: the chunk's first frame index.
    The chunk's own K/V are returned with the output; the caller keeps those of the clean pass.
    """

    config: TransformerConfig
    past: list[KeyValue]
    first_frame: int

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        frames = torch.arange(self.first_frame, self.first_frame + num_frames, device=device).expand(batch, -1)
        return Positions(frames, sink_positions(frames, self.config))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue]:
        (q, k, q_sink), v = rotation.rotate(qkv), qkv[:, :, 2]
        past_k, past_v = self.past[layer]
        num_sink = self.config.sink_frames * self.config.tokens_per_frame
        keys, values = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
        return attention(q, keys, values, q_sink=q_sink, num_sink=num_sink), (k, v)


@dataclass(frozen=True, slots=True)
class ClipMask:
    """An explicit frame-by-frame pattern over one sequence, as a bool matrix `f f` (query, key). For tests."""

    config: TransformerConfig
    frames: Tensor
    mask: Tensor = field(repr=False)

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        frames = self.frames.to(device).expand(batch, -1)
        return Positions(frames, sink_positions(frames, self.config))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue]:
        (q, k, q_sink), v = rotation.rotate(qkv), qkv[:, :, 2]
        num_sink = self.config.sink_frames * self.config.tokens_per_frame
        mask = _tokens(self.mask, self.config)
        return attention(q, k, v, mask=mask, q_sink=q_sink, num_sink=num_sink), (k, v)


def clean_sees_clean(frames: Tensor, config: TransformerConfig, seen: Tensor | None = None) -> Tensor:
    """Return the bool mask `f s`: clean chunk i sees clean chunks i−W … i and the sink. seen: the frames to look at, by
    default the same ones."""
    chunk, key_chunk = (index // config.chunk_frames for index in (frames, frames if seen is None else seen))
    gap = chunk[:, None] - key_chunk[None, :]
    in_sink = key_chunk[None, :] < config.sink_chunks
    return (gap >= 0) & ((gap <= config.window_chunks) | in_sink)


def noisy_sees_clean(frames: Tensor, config: TransformerConfig) -> Tensor:
    """Return the bool mask `f f`: noisy chunk i sees clean chunks i−W … i−1 and the sink before it. Its own noisy keys
    are handled separately."""
    chunk = frames // config.chunk_frames
    return clean_sees_clean(frames, config) & (chunk[:, None] != chunk[None, :])


def _tokens(mask: Tensor, config: TransformerConfig) -> Tensor:
    """Expand a mask of frames to one of tokens."""
    n = config.tokens_per_frame
    return mask.repeat_interleave(n, 0).repeat_interleave(n, 1)
