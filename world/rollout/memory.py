"""How much memory a session takes, and how far it can go back within a budget. Pure arithmetic: allocates nothing."""

from __future__ import annotations

import torch

from world.model.config import TransformerConfig
from world.rollout.replay import history_frames
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS


def kv_bytes(config: TransformerConfig, dtype: torch.dtype) -> int:
    """Return the size of one copy of a slot's K/V, as the arena stores them in `dtype`."""
    tokens = config.context_frames * config.tokens_per_frame
    return 2 * config.num_layers * config.num_heads * tokens * config.head_dim * dtype.itemsize


def record_bytes(config: TransformerConfig, num_frames: int) -> int:
    """Return the size of the latents and action vectors of `num_frames` frames, in float32."""
    return 4 * num_frames * (config.channels * config.height * config.width + config.action_dim)


def timeline_bytes(config: TransformerConfig, dtype: torch.dtype, timeline_chunks: int) -> int:
    """Return the most that the past of one session takes: its record, and a K/V copy every `KV_CHECKPOINT_CHUNKS`
    chunks for as long as the record lasts, one more for the start. Going back or forking takes one copy more for a
    while."""
    if not timeline_chunks:
        return record_bytes(config, config.sink_frames + history_frames(config))
    kept_chunks = timeline_chunks + KV_CHECKPOINT_CHUNKS
    num_frames = config.sink_frames + history_frames(config) + kept_chunks * config.chunk_frames
    return record_bytes(config, num_frames) + (kept_chunks // KV_CHECKPOINT_CHUNKS + 1) * kv_bytes(config, dtype)


def timeline_within(config: TransformerConfig, dtype: torch.dtype, timeline_chunks: int, num_bytes: int) -> int:
    """Return as many chunks as a session can go back in `num_bytes`, at most `timeline_chunks`; 0 if not even two K/V
    copies fit."""
    fewest, most = 0, max(0, timeline_chunks)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        if timeline_bytes(config, dtype, middle) <= num_bytes:
            fewest = middle
        else:
            most = middle - 1
    return fewest
