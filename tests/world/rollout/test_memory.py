"""What a session takes in memory, by arithmetic, against what it takes in fact."""

from __future__ import annotations

import pytest
import torch

from tests.world.definitions import context, random_actions
from world import World
from world.model.config import TransformerConfig
from world.rollout.memory import kv_bytes, record_bytes, timeline_bytes, timeline_within
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS

GIB = 2**30
WAN_1_3B = TransformerConfig(
    channels=16,
    height=60,
    width=104,
    patch=2,
    dim=1536,
    ffn_dim=8960,
    num_layers=30,
    num_heads=12,
    chunk_frames=3,
    window_frames=18,
    sink_frames=3,
    text_dim=4096,
    num_text_tokens=512,
)
"""The published shape (arXiv:2503.20314) at 480 x 832, as Self-Forcing plays it."""


def test_a_kv_copy_is_as_large_as_the_arithmetic_says(world: World) -> None:
    rollout = world.rollout(3)
    assert kv_bytes(rollout.config, world.dtype) * 3 == rollout.arena.num_bytes


@pytest.mark.parametrize("timeline_chunks", [1, 40])
def test_no_past_is_larger_than_the_arithmetic_says(world: World, timeline_chunks: int) -> None:
    rollout = world.rollout(1, timeline_chunks=timeline_chunks)
    rollout.start([0], *context(world, seed=0), [1])
    bound, largest = timeline_bytes(rollout.config, world.dtype, timeline_chunks), 0
    for number in range(timeline_chunks + 3 * KV_CHECKPOINT_CHUNKS):
        rollout.step_latents(random_actions(world, 1, number), [0])
        slot = rollout._slots[0]
        copies = sum(part.nbytes for checkpoint in slot.kv_checkpoints for part in checkpoint.kv)
        record = sum(latent.nbytes + vector.nbytes for _, latent, vector in (*slot.sink, *slot.recent))
        largest = max(largest, copies + record)
        assert copies + record <= bound
    assert largest > 0.7 * bound, "the bound is not far from the truth"
    reach = (rollout.frame_index(0) - rollout.oldest_frame(0)) // rollout.config.chunk_frames
    assert reach >= timeline_chunks


def test_at_the_shape_of_wan_1_3b() -> None:
    """6.4 GiB a copy: a budget decides how far back a session goes, and a small one says not at all."""
    dtype = torch.bfloat16
    one = kv_bytes(WAN_1_3B, dtype)
    assert one == 2 * 30 * 12 * (24 * 1560) * 128 * 2
    assert 6.4 < one / GIB < 6.5
    assert record_bytes(WAN_1_3B, 1) == 4 * 16 * 60 * 104
    assert timeline_within(WAN_1_3B, dtype, 56, 2 * one) == 0, "the record takes something as well"
    assert timeline_within(WAN_1_3B, dtype, 56, 14 * GIB) == KV_CHECKPOINT_CHUNKS - 1, "two copies"
    assert timeline_within(WAN_1_3B, dtype, 56, 20 * GIB) == 56, "three copies"
    for budget in (5, 13, 20, 26, 33, 64):
        chunks = timeline_within(WAN_1_3B, dtype, 1000, budget * GIB)
        assert not chunks or timeline_bytes(WAN_1_3B, dtype, chunks) <= budget * GIB
        assert timeline_bytes(WAN_1_3B, dtype, chunks + 1) > budget * GIB
