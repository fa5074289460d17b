"""One session as data: its present state and the K/V checkpoints it can go back to. Owns these records; computes
nothing.

A slot keeps an exact copy of its K/V every `KV_CHECKPOINT_CHUNKS` chunks, and the latents and actions since. To go back
to a chunk, a rollout restores the checkpoint before it and commits the chunks in between again, in the same forward
passes as the first time. The result is bit-equal if the session was stepped alone, with the same code and number of
threads; it is equal up to rounding otherwise, as when other sessions shared those passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from world.actions import described
from world.codecs.codec import CodecState

KV_CHECKPOINT_CHUNKS = 32

FrameRecord = tuple[int, Tensor, Tensor]
"""One latent frame: its index, latent `c h w` and action vector `a`."""


def stacked(record: Iterable[FrameRecord]) -> tuple[Tensor, Tensor]:
    """Return the latents `n c h w` and action vectors `n a` of a record."""
    _, latents, vectors = zip(*record, strict=True)
    return torch.stack(latents), torch.stack(vectors)


@dataclass(frozen=True, slots=True)
class RolloutState:
    """One session as data. `kv` is an exact copy of its cache; without it the cache is replayed from `history`.

    history: the last latents `n c h w` and action vectors `n a` (frame indices in `history_index`), enough to replay
    every layer; the last chunk is not committed yet. codec: the codec's state, batch of one. text: token embeddings
    `l text_dim`, if the session has a text.
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

    def __repr__(self) -> str:
        kv = "None" if self.kv is None else f"{sum(part.nbytes for part in self.kv) / 1e6:.1f} MB"
        return (
            f"RolloutState(seed={self.seed}, next_chunk={self.next_chunk}, start_chunk={self.start_chunk}, "
            f"history={described(self.history)}, kv={kv}, text={described(self.text)})"
        )

    @property
    def num_bytes(self) -> int:
        """Return how much memory its tensors take."""
        tensors = [self.history, self.history_actions, *self.codec.values(), *(self.kv or ())]
        return sum(tensor.nbytes for tensor in (*tensors, *([] if self.text is None else [self.text])))

    def without_kv(self) -> RolloutState:
        """Return the state without what can be computed from the rest of it."""
        return replace(self, kv=None, codec={})


torch.serialization.add_safe_globals([RolloutState])  # so that `torch.load` reads it without `weights_only=False`


@dataclass(frozen=True, slots=True)
class KVCheckpoint:
    """A copy of a slot's K/V just before chunk `next_chunk`, and the text from then on."""

    next_chunk: int
    kv: tuple[Tensor, ...]
    text: Tensor | None


@dataclass(slots=True)
class Slot:
    """One session. sink: the sink's frames. recent: the latest frames, the uncommitted chunk last. ready: on a GPU, the
    event after which the newest frame is computed."""

    seed: int
    next_chunk: int
    start_chunk: int
    sink: list[FrameRecord]
    recent: deque[FrameRecord]
    codec: CodecState
    text: Tensor | None = None
    ready: torch.cuda.Event | None = None
    kv_checkpoints: list[KVCheckpoint] = field(default_factory=list)

    def copy(self) -> Slot:
        return replace(self, recent=self.recent.copy(), kv_checkpoints=list(self.kv_checkpoints))

    def as_data(self, history_frames: int, kv: tuple[Tensor, ...] | None) -> RolloutState:
        """Return the present state, with the last `history_frames` of the record."""
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
        """Drop K/V checkpoints that have fewer than `history_frames` of the record before them."""
        first = self.recent[0][0]
        if first > len(self.sink):  # the record no longer reaches back to the start
            self.kv_checkpoints = [
                checkpoint
                for checkpoint in self.kv_checkpoints
                if checkpoint.next_chunk * chunk_frames - first >= history_frames
            ]

    def back_to(self, chunk: int, chunk_frames: int) -> tuple[KVCheckpoint, list[FrameRecord]]:
        """Go back to the last K/V checkpoint that is not after `chunk`. Return it, and the frames from there up to
        `chunk`, which the caller commits again."""
        kv_checkpoint = next(c for c in reversed(self.kv_checkpoints) if c.next_chunk <= chunk)
        self.kv_checkpoints = [c for c in self.kv_checkpoints if c.next_chunk <= kv_checkpoint.next_chunk]
        first = kv_checkpoint.next_chunk * chunk_frames
        since = [frame for frame in self.recent if first <= frame[0] < chunk * chunk_frames]
        while self.recent and self.recent[-1][0] >= first:
            self.recent.pop()
        self.next_chunk, self.text = kv_checkpoint.next_chunk, kv_checkpoint.text
        return kv_checkpoint, since
