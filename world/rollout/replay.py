"""Recompute a slot's cache and codec state from its record. Owns the required length of the record, and the passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence

import torch

from world.codecs.codec import CodecState
from world.model.config import TransformerConfig
from world.model.cross_attention import TextKeys
from world.model.patterns import BandedPart, KeyValue
from world.model.transformer import Conditioning
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


def part_frames(model: Model) -> int:
    """Return how many frames can be replayed in no more time than a step takes: a step's passes hold one chunk more."""
    return model.sampler.num_steps * model.transformer.config.chunk_frames


def replaying(
    model: Model, committed: Sequence[FrameRecord], text: TextKeys | None, num_frames: int
) -> Generator[None, None, tuple[int, list[tuple[KeyValue, KeyValue]]]]:
    """Compute the K/V of every frame that a slot can still see from its committed frames, the sink's first, in parts of
    `num_frames` frames. Return the first chunk of the window, and of each layer the sink's K/V and the window's."""
    config = model.transformer.config
    pattern = BandedPart(config, kernel_choice=model.kernel_choice)
    for start in range(0, len(committed), num_frames):
        part = committed[start : start + num_frames]
        x, actions = (stack[None] for stack in stacked(part))
        level = torch.full(x.shape[:2], model.context_sigma, device=x.device)
        pattern = pattern.followed_by(tuple(i for i, _, _ in part))
        kv = model.transformer(x, level, Conditioning(actions=actions, text=text), pattern=pattern).kv
        pattern = pattern.with_own(kv)
        if start + num_frames < len(committed):
            yield
    sink = config.sink_frames * config.tokens_per_frame
    window = config.window_frames * config.tokens_per_frame
    keys = [((k[:, :sink], v[:, :sink]), (k[:, -window:], v[:, -window:])) for k, v in pattern.past]
    return (committed[-1][0] + 1 - config.window_frames) // config.chunk_frames, keys


def codec_state_after(model: Model, frames: Iterable[FrameRecord]) -> CodecState:
    """Return the codec's state after these frames, from as many of the last ones as it needs."""
    latents, _ = stacked(list(frames)[-max(model.codec.warm_up_latents, 1) :])
    return model.codec.state_after(latents[None].to(model.dtype))
