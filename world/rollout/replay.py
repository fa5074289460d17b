"""A slot's cache made anew from its record. Owns how long a record that takes, and the pass that does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from world.model.config import TransformerConfig
from world.model.cross_attention import TextKeys
from world.model.patterns import Banded
from world.model.transformer import Conditioning
from world.rollout.cache import Arena
from world.rollout.networks import Model
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS, Entry, stacked


def history_frames(config: TransformerConfig) -> int:
    """Frames whose replay gives exact K/V of the window in every layer, and the pending chunk."""
    return config.num_layers * config.window_frames + config.chunk_frames


def split(config: TransformerConfig, record: Sequence[Entry], timeline_chunks: int) -> tuple[list[Entry], deque[Entry]]:
    """(sink, the rest with room to grow) of a session's record."""
    room = (timeline_chunks + KV_CHECKPOINT_CHUNKS) * config.chunk_frames if timeline_chunks else 0
    return list(record[: config.sink_frames]), deque(record[config.sink_frames :], history_frames(config) + room)


def replay(model: Model, arena: Arena, slot: int, committed: Sequence[Entry], text: TextKeys | None) -> None:
    """Recompute the slot's K/V of every frame it may still see, from its committed frames, the sink's first."""
    config = arena.config
    index = tuple(i for i, _, _ in committed)
    x, actions = (part[None] for part in stacked(committed))
    level = torch.full(x.shape[:2], model.context_sigma, device=x.device)
    conditioning = Conditioning(actions=actions, text=text)
    kv = model.transformer(x, level, conditioning, pattern=Banded(config, index)).kv
    sink_tokens = config.sink_frames * config.tokens_per_frame
    window_tokens = config.window_frames * config.tokens_per_frame
    if sink_tokens:
        arena.load(slot, 0, [(k[:, :sink_tokens], v[:, :sink_tokens]) for k, v in kv])
    first = (index[-1] + 1 - config.window_frames) // config.chunk_frames
    arena.load(slot, first, [(k[:, -window_tokens:], v[:, -window_tokens:]) for k, v in kv])
