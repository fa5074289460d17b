"""Files that an earlier version of this program wrote: checkpoints, stored and saved sessions, a snapshot.

`tests/data/before_rooms` holds them with what that version played next. Its sessions were stored in format 1.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from PIL import Image

from server.admission.session_factory import new_session
from server.engine.model_runner import ModelRunner, world_info
from server.errors import UnknownTicketError
from server.state import format_1
from server.state.store import StoredSession
from server.state.stored_session import SuspendedSession, from_stored
from server.wire.protocol import Ack
from tests.server.raw import hello, raw_client
from tests.server.resuming import CONFIG, acted
from tests.server.serving import RunningServer, serve
from world import World
from world.rollout.snapshots import from_bytes

DATA = Path(__file__).resolve().parents[2] / "data" / "before_rooms"
NAMES = ["pixel", "wan", "tracked"]
EXPECTED: dict[str, dict[str, Any]] = json.loads((DATA / "expected.json").read_text())
MAX_GREY_LEVELS = 2
"""How far a picture may differ: other machines round differently."""


def load(name: str) -> World:
    return World.load(DATA / name, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on a copy of the store."""
    store = tmp_path_factory.mktemp("store") / "sessions.db"
    shutil.copy(DATA / "sessions.db", store)
    config = replace(CONFIG, store=store, hold_s=0.0, resume_s=3600.0)
    with serve(config, {name: partial(load, name) for name in NAMES}) as running:
        yield running


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_loads_and_generates_a_frame(name: str) -> None:
    world = load(name)
    start = world.starts[0]
    frames = world.start(start.frames[None], start.actions, seed=3).step(world.actions(["up"]))
    assert frames.shape == (1, world.chunk_pixel_frames, world.card.height, world.card.width, 3)
    assert frames.dtype == torch.uint8


@pytest.mark.parametrize("name", NAMES)
async def test_a_stored_session_continues_as_it_did(server: RunningServer, name: str) -> None:
    expected = EXPECTED[name]
    resume = {"ticket": expected["ticket"], "last_frame": expected["last_frame"]}
    async with raw_client(server.url, hello(name, pacing="lockstep", resume=resume)) as client:
        assert (client.welcome.generation, client.welcome.last_seq) == (1, 6)
        frames = await acted(client, range(7, 10))
    assert frames[0].index == expected["last_frame"] + 1
    assert [frames[-1].index, frames[-1].run_frame] == expected["after"]
    assert {frame.run for frame in frames} == {0}
    difference = picture(frames[-1].payload) - picture((DATA / f"{name}.png").read_bytes())
    assert np.abs(difference).max() <= MAX_GREY_LEVELS


@pytest.mark.parametrize("name", NAMES)
async def test_a_saved_session_starts_a_session(server: RunningServer, name: str) -> None:
    file = (DATA / f"{name}.session").read_bytes()
    async with raw_client(server.url, hello(name, pacing="lockstep", start={"state": file})) as client:
        first = await client.frame()
        assert (first.kind, first.run_frame) == ("start", EXPECTED[name]["saved_run_frame"])
        await client.send(Ack(frame=first.index))
        frames = await acted(client, range(7, 10))
    assert frames[-1].run_frame == EXPECTED[name]["after"][1]
    difference = picture(frames[-1].payload) - picture((DATA / f"{name}.png").read_bytes())
    assert np.abs(difference).max() <= MAX_GREY_LEVELS


def test_a_snapshot_restores_and_continues() -> None:
    world = load("pixel")
    start = world.starts[0]
    rollout = world.start(start.frames[None], start.actions, seed=3)
    for _ in range(6):
        rollout.step(world.actions(["up"]))
    restored = load("pixel").rollout(1)
    restored.restore(0, from_bytes((DATA / "snapshot.safetensors").read_bytes()))
    expected, frames = rollout.step(world.actions(["up"])), restored.step(world.actions(["up"]))
    assert (expected.int() - frames.int()).abs().max() <= MAX_GREY_LEVELS


@pytest.mark.parametrize(
    "wrong", [{"format": 4}, {"fingerprint": "x"}, {"session": {}}, {"state": b"x"}, {"frames": 1}]
)
def test_a_stored_session_of_another_version_or_world_is_refused(wrong: dict[str, object]) -> None:
    with sqlite3.connect(f"file:{DATA / 'sessions.db'}?immutable=1", uri=True) as file:
        generation, data = file.execute("select generation, data from sessions where world = 'pixel'").fetchone()
    owner = ModelRunner(load("pixel"), 1, 1, ())
    upgraded = format_1.upgrade(msgpack.unpackb(data))
    config = replace(CONFIG, hold_s=0.0)

    def restore(content: dict[str, object]) -> SuspendedSession:
        stored = StoredSession("k", "s", generation + 1, "pixel", lambda: msgpack.packb(content))
        session = new_session("k", hello(), world_info("pixel", load("pixel")), config)
        return from_stored(stored, session, owner, 0.0)

    written = msgpack.unpackb(msgpack.packb(restore(upgraded).session.to_data()))
    assert written == upgraded["session"], "what is read is written again"
    with pytest.raises(UnknownTicketError):
        restore({**upgraded, **wrong})
