"""Faults of the store, and rows that do not fit: a living session can always be resumed, and a fault is of one
session."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch

from server.engine.fingerprint import fingerprint
from server.state import store as store_module
from server.wire.protocol import Welcome
from tests.server.raw import hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, resuming, settled
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world.rollout.snapshots import from_bytes, to_bytes
from world.testing import tiny_world


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock, as another process would that writes for ever."""
    with sqlite3.connect(path, isolation_level=None) as file:
        file.execute("begin immediate")
        yield
        file.execute("rollback")


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Let every write fail."""
    with sqlite3.connect(path) as file:
        file.execute("create trigger full before update on sessions begin select raise(fail, 'disk is full'); end")
        file.execute("create trigger full_too before insert on sessions begin select raise(fail, 'disk is full'); end")
    yield
    with sqlite3.connect(path) as file:
        file.execute("drop trigger full")
        file.execute("drop trigger full_too")


@pytest.mark.parametrize("fault", [locked, full])
@pytest.mark.parametrize("hold_s", [60.0, 0.0])
async def test_a_living_session_resumes_from_memory_whatever_the_store_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path], Any], hold_s: float
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE_MS", 50)
    path = tmp_path / "s.db"
    with serve(replace(CONFIG, hold_s=hold_s, store=path), WORLDS) as server:
        async with raw_client(server.url, hello()) as client:
            seen, welcome = await client.play(3), client.welcome
            with fault(path):
                client.socket.transport.abort()
                for generation in (1, 2):
                    await left(server, welcome, hold_s)
                    async with raw_client(server.url, resuming(welcome, seen[-1].index)) as again:
                        assert again.welcome.generation == generation
                        seen += await again.play(3)
        await left(server, welcome, hold_s)
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as again:
            seen += await again.play(3)
        assert {frame.run for frame in seen} == {0}, "nothing is lost"
        assert b"lightcone_store_failures 0.0" not in server.engine.metrics.text()
        assert server.engine.is_ready


async def left(server: RunningServer, welcome: Welcome, hold_s: float) -> None:
    """Wait until a session is held, or has left its slot."""

    def is_over() -> bool:
        with server.engine._lock:
            entry = server.engine._registry.entries.get(welcome.session)
            return entry is None or (hold_s > 0 and entry.session.life.is_held)

    await until(is_over, "the session has no connection")


async def test_a_session_that_is_only_in_a_store_that_cannot_be_read_can_be_resumed_later(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with serve(replace(CONFIG, hold_s=0.0, store=path), WORLDS) as server:
        async with raw_client(server.url, hello()) as client:
            seen, welcome = await client.play(3), client.welcome
        await settled(server, welcome.session, hold_s=0.0)
        with server.engine._lock:
            server.engine._registry.suspended_sessions._in_memory.clear()
        with full(path):
            async with raw_client(server.url) as early:
                await early.send(resuming(welcome, seen[-1].index))
                assert (await early.error()).code == "not_ready"
                assert await early.close_code() == 1013
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as again:
            assert len(await again.play(3)) == 3


def in_session(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        part = content["session"]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value

    return change


def in_state(what: str) -> Callable[[dict[str, Any]], None]:
    """Put a value that is not finite into a tensor of the state."""

    def change(content: dict[str, Any]) -> None:
        state = from_bytes(content["state"])
        tensor = state.kv[0] if what == "kv" and state.kv is not None else getattr(state, what)
        tensor.view(-1)[0] = float("nan")
        content["state"] = to_bytes(state)

    return change


def unchanged(_content: dict[str, Any]) -> None:
    """Damage nothing."""


BAD = {
    "an axis": in_session("input_buffer", "moved", value={"rudder": 1.0}),
    "a button": in_session("input_buffer", "held", value=["eject"]),
    "an encoding": in_session("encoding", value="bmp"),
    "a pacing": in_session("pacing", value="never"),
    "a speed": in_session("pace", "speed", value=float("nan")),
    "a speed of zero": in_session("pace", "speed", value=0.0),
    "a frame number": in_session("flow_control", "next_index", value=-5),
    "a frame in flight": in_session("flow_control", "in_flight", value=[10**6]),
    "another frame": in_session("run", "frame", value=7000),
    "a log": in_session("run", "log", "counts", value=[1, 2, 3]),
    "latents": in_state("history"),
    "actions": in_state("history_actions"),
    "K/V": in_state("kv"),
}


async def test_a_row_that_does_not_fit_ends_its_own_session_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.db"
    with serve(replace(CONFIG, hold_s=0.0, store=path), WORLDS) as server:
        async with raw_client(server.url, hello()) as other:
            await other.play(2)
            async with raw_client(server.url, hello()) as client:
                seen, welcome = await client.play(3), client.welcome
            await settled(server, welcome.session, hold_s=0.0)
            with server.engine._lock:
                server.engine._registry.suspended_sessions._in_memory.clear()
            with sqlite3.connect(path) as file:
                (data,) = file.execute("select data from sessions where key = ?", (welcome.session,)).fetchone()
            for name, change in {**BAD, "nothing": unchanged}.items():
                content = msgpack.unpackb(data)
                change(content)
                await asyncio.to_thread(overwrite, path, welcome.session, msgpack.packb(content))
                async with raw_client(server.url) as back:
                    await back.send(resuming(welcome, seen[-1].index))
                    if name == "nothing":
                        assert len(await back.play(3)) == 3
                        continue
                    assert (await back.error()).code == "unknown_ticket", name
                assert any(welcome.session in record.getMessage() for record in caplog.records), "the log says why"
                assert len(await other.play(2)) == 2, name
        assert server.engine.failure is None


def overwrite(path: Path, key: str, data: bytes) -> None:
    with sqlite3.connect(path) as file:
        file.execute("update sessions set data = ? where key = ?", (data, key))


@pytest.mark.parametrize("config", ["pixel", "wan"])
def test_the_fingerprint_is_of_the_student_and_the_axes_and_not_of_the_precision(config: str) -> None:
    world = tiny_world(config=config)
    before = fingerprint(world)
    assert fingerprint(tiny_world(config=config, dtype=torch.bfloat16)) == before
    if world.card.axes:
        axes = (replace(world.card.axes[0], name="rudder"), *world.card.axes[1:])
        world.card = replace(world.card, axes=axes)
        assert fingerprint(world) != before
    trained = tiny_world(config=config)
    with torch.no_grad():
        next(trained.transformer.parameters()).mul_(1.05)
    assert fingerprint(trained) != before
