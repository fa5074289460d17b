"""Helpers for tests of resuming: settings, messages, and the state of a session inside the server."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from server.config import ServerConfig
from server.engine.model_runner import WorldLoader
from server.sessions.session import Session
from server.wire.protocol import Ack, Act, Frame, Hello, Welcome
from tests.server.raw import Raw, hello
from tests.server.serving import RunningServer
from world import Rollout, RolloutState
from world.rollout.replay import history_frames
from world.testing import tiny_world

WORLDS: dict[str, WorldLoader | Path] = {"pixel": tiny_world, "wan": partial(tiny_world, config="wan")}
CONFIG = ServerConfig(
    max_sessions=4,
    address_share=1.0,  # all players of a test share one address
    address_budget=1e6,
    queue_limit=8,
    num_threads=1,
    headroom=None,
    max_per_address=1000,
    connections_per_s=1000.0,
)
HELD, SUSPENDED, STORED = "in its slot", "in memory", "on disk"


def resuming(welcome: Welcome, last_frame: int | None, **fields: object) -> Hello:
    assert welcome.resume_ticket is not None
    return hello(welcome.world.name, resume={"ticket": welcome.resume_ticket, "last_frame": last_frame}, **fields)


async def settled(server: RunningServer, key: str, *, hold_s: float) -> None:
    """Wait until a session without a connection is held, or has left its slot and is written to the store."""
    while True:
        with server.engine._lock:
            entry = server.engine._registry.entries.get(key)
            if entry is None or (hold_s and entry.session.life.is_held):
                break
        await asyncio.sleep(0.005)
    store = server.engine.store
    if store is not None:
        await asyncio.wrap_future(store._work.submit(lambda: None))
        with server.engine._lock:
            server.engine._registry.suspended_sessions.drop_expired(time.monotonic())


def rollout_of(server: RunningServer, world: str) -> Rollout:
    return server.engine.world_registry.runner(world)._rollout


def session_of(server: RunningServer, key: str) -> Session:
    with server.engine._lock:
        return server.engine._registry.entries[key].session


def state_of(server: RunningServer, key: str, world: str) -> RolloutState:
    slot = session_of(server, key).life.slot
    assert slot is not None
    rollout = rollout_of(server, world)  # it belongs to the model thread, which may do nothing else meanwhile
    return rollout._slots[slot].as_data(history_frames(rollout.config), rollout.arena.copy_out(slot))


def assert_same(state: RolloutState, other: RolloutState) -> None:
    assert state.kv is not None
    assert other.kv is not None
    tensors: list[tuple[Tensor, Tensor]] = [(state.history, other.history), *zip(state.kv, other.kv, strict=True)]
    tensors += [(state.codec[name], other.codec[name]) for name in state.codec]
    assert all(torch.equal(a, b) for a, b in tensors)
    assert (state.next_chunk, state.history_index, state.seed) == (other.next_chunk, other.history_index, other.seed)


async def acted(client: Raw, seqs: range) -> list[Frame]:
    """Send lock-step acts one after the other. Return the frames of their chunks, acknowledged."""
    frames: list[Frame] = []
    for seq in seqs:
        await client.send(Act(seq=seq, buttons=("up",) if seq % 3 else ("down",)))
        while not (frames and frames[-1].applied_seq == seq and frames[-1].end_of_chunk):
            frames.append(await client.frame())
        await client.send(Ack(frame=frames[-1].index))
    return frames


def content(frames: list[Frame]) -> list[tuple[int, int, int, bytes]]:
    return [(frame.index, frame.run, frame.run_frame, frame.payload) for frame in frames]
