"""What a world's sessions may keep beside their slots, by a budget in bytes. Owns the decision; allocates nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from server.sessions.run import slack_chunks
from world import World
from world.rollout.memory import kv_bytes, timeline_within

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionMemory:
    """What fits. timeline_frames: how many pixel frames a player can go back; timeline_chunks: how many chunks a
    rollout must be able to, because more are generated between a request and its execution. copies_kv: whether branches
    and suspended sessions are exact copies; else their K/V are computed again, and a suspended one begins a new run."""

    timeline_frames: int
    timeline_chunks: int
    copies_kv: bool


def session_memory(world: World, timeline_frames: int, num_bytes: int) -> SessionMemory:
    """Return what a session of `world` may keep in `num_bytes` of the `timeline_frames` that are wished for."""
    config, chunk_frames = world.transformer.config, world.chunk_pixel_frames
    slack = slack_chunks(chunk_frames / world.card.fps)
    wished = -(-timeline_frames // chunk_frames) + slack if timeline_frames else 0
    chunks = timeline_within(config, world.dtype, wished, num_bytes)
    one_copy = kv_bytes(config, world.dtype)
    if chunks < wished:
        frames = max(0, chunks - slack) * chunk_frames
        logger.warning(
            "%s: players can go back %d of %d frames; one K/V copy takes %.2f GiB, and a session may keep %.2f GiB",
            *(world.card.name, frames, timeline_frames, one_copy / 2**30, num_bytes / 2**30),
        )
        timeline_frames, chunks = frames, chunks if frames else 0
    return SessionMemory(timeline_frames=timeline_frames, timeline_chunks=chunks, copies_kv=one_copy <= num_bytes)
