"""Recompute a slot's cache and codec state from its record. Owns the required length of the record, and the pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import torch

from world.codecs.codec import CodecState
from world.model.config import TransformerConfig
from world.model.cross_attention import TextKeys
from world.model.patterns import Banded
from world.model.transformer import Conditioning
from world.rollout.cache import Arena
from world.rollout.networks import Model
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS, FrameRecord, stacked


def history_frames(config: TransformerConfig) -> int:
    """Return how many frames give exact K/V of the window in every layer when replayed, plus the uncommitted chunk."""
    return config.num_layers * config.window_frames + config.chunk_frames


def split_record(
    config: TransformerConfig, record: Sequence[FrameRecord], timeline_chunks: int
) -> tuple[list[FrameRecord], deque[FrameRecord]]:
    """Split a session's record into the sink's frames and the recent ones, a deque long enough for the timeline."""
    extra = (timeline_chunks + KV_CHECKPOINT_CHUNKS) * config.chunk_frames if timeline_chunks else 0
    return list(record[: config.sink_frames]), deque(record[config.sink_frames :], history_frames(config) + extra)


def replay(model: Model, arena: Arena, slot: int, committed: Sequence[FrameRecord], text: TextKeys | None) -> None:
    """Recompute the slot's K/V of every frame it can still see from its committed frames, the sink's first."""
    config = arena.config
    index = tuple(i for i, _, _ in committed)
    x, actions = (part[None] for part in stacked(committed))
    level = torch.full(x.shape[:2], model.context_sigma, device=x.device)
    conditioning = Conditioning(actions=actions, text=text)
    kv = model.transformer(x, level, conditioning, pattern=Banded(config, index, model.kernel_choice)).kv
    sink_tokens = config.sink_frames * config.tokens_per_frame
    window_tokens = config.window_frames * config.tokens_per_frame
    if sink_tokens:
        arena.load(slot, 0, [(k[:, :sink_tokens], v[:, :sink_tokens]) for k, v in kv])
    first = (index[-1] + 1 - config.window_frames) // config.chunk_frames
    arena.load(slot, first, [(k[:, -window_tokens:], v[:, -window_tokens:]) for k, v in kv])


def codec_state_after(model: Model, frames: Iterable[FrameRecord]) -> CodecState:
    """Return the codec's state after these frames, from as many of the last ones as it needs."""
    latents, _ = stacked(list(frames)[-max(model.codec.warm_up_latents, 1) :])
    return model.codec.state_after(latents[None].to(model.dtype))
