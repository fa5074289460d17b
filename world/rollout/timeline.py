"""One session as data: now, and at moments it can go back to. Owns these records; computes nothing.

A slot keeps an exact copy of its K/V every `KV_CHECKPOINT_CHUNKS` chunks, and the latents and actions since. Going back to a
chunk takes the copy before it and commits the chunks between anew, in the forward passes that committed them first.
What follows is bit-equal where the session was stepped alone, equal up to rounding where others shared those passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from world.codecs.convolutional import CodecState

KV_CHECKPOINT_CHUNKS = 32

_T = TypeVar("_T")

Entry = tuple[int, Tensor, Tensor]
"""A frame of a record: its index, latent `c h w` and action vector `a`."""


def stacked(record: Iterable[Entry]) -> tuple[Tensor, Tensor]:
    """Latents `n c h w` and action vectors `n a` of a record."""
    _, latents, vectors = zip(*record, strict=True)
    return torch.stack(latents), torch.stack(vectors)


@dataclass(frozen=True, slots=True)
class RolloutState:
    """One session as data. `kv` is an exact copy of its cache; without it the cache is replayed from `history`.

    history: the last latents `n c h w` and action vectors `n a` (frame indices in `history_index`), enough for every
    layer; the last chunk of it is not committed yet. codec: the codec's state, batch of one. text: token embeddings
    `l text_dim`, if it has any.
    """

    seed: int
    next_chunk: int
    start_chunk: int
    history: Tensor
    history_actions: Tensor
    history_index: tuple[int, ...]
    codec: CodecState
    kv: tuple[Tensor, ...] | None
    text: Tensor | None = None


@dataclass(frozen=True, slots=True)
class KVCheckpoint:
    """A copy of a slot's K/V just before chunk `next_chunk`, and the text that held from then on."""

    next_chunk: int
    kv: tuple[Tensor, ...]
    text: Tensor | None


@dataclass(slots=True)
class Slot:
    """One session. sink: the sink's frames; recent: the latest ones, the pending chunk last. made: on a GPU, when the
    newest of them is there."""

    seed: int
    next_chunk: int
    start_chunk: int
    sink: list[Entry]
    recent: deque[Entry]
    codec: CodecState
    text: Tensor | None = None
    made: torch.cuda.Event | None = None
    kv_checkpoints: list[KVCheckpoint] = field(default_factory=list)

    def copy(self) -> Slot:
        return replace(self, recent=self.recent.copy(), kv_checkpoints=list(self.kv_checkpoints))

    def as_data(self, history_frames: int, kv: tuple[Tensor, ...] | None) -> RolloutState:
        """As it is now, with the last `history_frames` of its record."""
        record = [*self.sink, *list(self.recent)[-history_frames:]]
        history, actions = stacked(record)
        return RolloutState(
            seed=self.seed,
            next_chunk=self.next_chunk,
            start_chunk=self.start_chunk,
            history=history,
            history_actions=actions,
            history_index=tuple(i for i, _, _ in record),
            codec={name: value.clone() for name, value in self.codec.items()},
            kv=kv,
            text=self.text,
        )

    def forget(self, history_frames: int, chunk_frames: int) -> None:
        """Drop moments from which not even `history_frames` of the record would be left."""
        first = self.recent[0][0]
        if first > len(self.sink):  # the record has lost its beginning
            self.kv_checkpoints = [
                m for m in self.kv_checkpoints if m.next_chunk * chunk_frames - first >= history_frames
            ]

    def back_to(self, chunk: int, chunk_frames: int) -> tuple[KVCheckpoint, list[Entry]]:
        """Become what it was at the last moment not after `chunk`; returns it, and the frames since, up to `chunk`."""
        kv_checkpoint = next(m for m in reversed(self.kv_checkpoints) if m.next_chunk <= chunk)
        self.kv_checkpoints = [m for m in self.kv_checkpoints if m.next_chunk <= kv_checkpoint.next_chunk]
        first = kv_checkpoint.next_chunk * chunk_frames
        since = [entry for entry in self.recent if first <= entry[0] < chunk * chunk_frames]
        while self.recent and self.recent[-1][0] >= first:
            self.recent.pop()
        self.next_chunk, self.text = kv_checkpoint.next_chunk, kv_checkpoint.text
        return kv_checkpoint, since


def run_to_end(parts: Generator[None, None, _T]) -> _T:
    """Do what is done in parts all at once; returns its result."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            result: _T = end.value
            return result
