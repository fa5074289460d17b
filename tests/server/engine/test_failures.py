"""Failures: of one session's slot job, which ends that session alone, and of a model, which ends the process."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from lightcone_client import connect
from numpy.typing import NDArray

from server.engine import decode_pipeline
from server.engine.model_runner import ModelRunner
from server.sessions.run import RunRequest
from server.sessions.session import Session
from server.telemetry.log import session_key
from server.wire.protocol import Ack, Fork, Start, StartFrom
from tests.server.command_line import ROOT, address_of, serving
from tests.server.raw import Raw, hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, acted, resuming, settled
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world import RolloutState
from world.testing import tiny_world

NUM_SLOTS = 2
BAD_SEED = 666


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve(replace(CONFIG, max_sessions=NUM_SLOTS, hold_s=0.0), WORLDS) as running:
        yield running


async def assert_ended_alone(server: RunningServer, failed: Raw, other: Raw, caplog: pytest.LogCaptureFixture) -> None:
    """`failed` is told `internal` without details, the log has them, `other` plays on, and all slots can be used."""
    error = await failed.error()
    assert (error.code, error.fatal) == ("internal", True)
    assert "out of paint" not in error.message
    assert await failed.close_code() == 1011
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert failed.welcome.session in record.getMessage()
    assert "out of paint" in caplog.text
    assert len(await other.play(5)) == 5
    assert (server.engine.failure, server.engine.is_ready) == (None, True)
    async with raw_client(server.url, hello()) as newcomer:
        assert len(await newcomer.play(3)) == 3
        assert server.engine.num_sessions == (NUM_SLOTS, 0)


async def test_a_start_that_fails_ends_its_session_alone(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real: Callable[..., Generator[None, None, NDArray[np.uint8]]] = ModelRunner.begin

    def begin(runner: ModelRunner, slot: int, request: RunRequest) -> Generator[None, None, NDArray[np.uint8]]:
        if getattr(request, "seed", None) == BAD_SEED:
            yield
            raise ArithmeticError("out of paint")
        return (yield from real(runner, slot, request))

    monkeypatch.setattr(ModelRunner, "begin", begin)
    async with raw_client(server.url, hello()) as other, raw_client(server.url, hello()) as failed:
        await other.play(2)
        await failed.play(2)
        await failed.send(Start(start=StartFrom(seed=BAD_SEED)))
        await assert_ended_alone(server, failed, other, caplog)


async def test_a_fork_that_fails_ends_its_session_alone(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fork(_runner: ModelRunner, *_rest: Any, **_options: Any) -> Generator[None, None, RolloutState]:
        yield
        raise ArithmeticError("out of paint")

    monkeypatch.setattr(ModelRunner, "fork", fork)
    async with raw_client(server.url, hello()) as other, raw_client(server.url, hello()) as failed:
        await other.play(2)
        await failed.play(2)
        await failed.send(Fork(seq=1))
        await assert_ended_alone(server, failed, other, caplog)


async def test_a_restore_that_fails_ends_its_session_alone(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def restore(_runner: ModelRunner, _slot: int, _state: RolloutState) -> None:
        raise ArithmeticError("out of paint")

    async with raw_client(server.url, hello()) as other:
        await other.play(2)
        async with raw_client(server.url, hello()) as client:
            seen, welcome = await client.play(2), client.welcome
        await settled(server, welcome.session, hold_s=0.0)
        monkeypatch.setattr(ModelRunner, "restore", restore)
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as failed:
            await assert_ended_alone(server, failed, other, caplog)


async def test_a_session_whose_connection_is_lost_while_its_start_fails_leaves_no_slot_behind(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(_runner: ModelRunner, _slot: int, _request: RunRequest) -> Generator[None, None, NDArray[np.uint8]]:
        time.sleep(0.2)
        yield
        raise ArithmeticError("out of paint")

    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "begin", begin)
        for _ in range(NUM_SLOTS):
            async with raw_client(server.url, hello()) as client:
                client.socket.transport.abort()
        await until(lambda: server.engine.num_sessions == (0, 0), "all sessions have ended")
    async with AsyncExitStack() as stack:
        for _ in range(NUM_SLOTS):
            client = await stack.enter_async_context(raw_client(server.url, hello()))
            assert len(await client.play(2)) == 2


# ---- a model that fails

BREAKABLE = """
import sys
from pathlib import Path
import lightcone
from server.engine.model_runner import ModelRunner

real = ModelRunner.{method}

def broken(*args):
    if Path(sys.argv[1]).exists():
        raise ArithmeticError("the world is upside down")
    return real(*args)

ModelRunner.{method} = broken
sys.exit(lightcone.main(sys.argv[2:]))
"""
"""`lightcone` with a model that fails as soon as the file of the first argument exists."""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command line of a server with one world and a store."""
    tiny_world().save(tmp_path / "tiny")
    store = str(tmp_path / "sessions.db")
    return ["serve", "--world", str(tmp_path / "tiny"), "--store", store, "--threads", "1", "--admit-all"]


@contextmanager
def breakable(method: str, words: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server whose model fails once `folder` has a file "broken", and its address; its log goes to "log"."""
    switch = str(folder / "broken")
    program = [sys.executable, "-c", BREAKABLE.format(method=method), switch, *words, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            yield process, address_of(process)
        finally:
            process.kill()


@pytest.mark.parametrize("method", ["step", "decode"])
async def test_a_model_that_fails_ends_the_process_with_70_and_its_sessions_resume_from_the_store(
    tmp_path: Path, words: list[str], method: str
) -> None:
    store = tmp_path / "sessions.db"
    with breakable(method, words, tmp_path) as (process, url):
        async with raw_client(url, hello("tiny", pacing="lockstep")) as client:
            welcome = client.welcome
            await client.send(Ack(frame=(await client.frame()).index))
            seen = await acted(client, range(1, 6))
            before = await saved_rows(store, run_frame=5)
            (tmp_path / "broken").touch()
            with pytest.raises(AssertionError, match="internal"):
                await acted(client, range(6, 7))
            assert await client.close_code() == 1011
        assert await asyncio.to_thread(process.wait, 30) == 70
    text = (tmp_path / "log").read_text()
    assert "upside down" in text, "the log has the traceback"
    (line,) = [line for line in text.splitlines() if line.startswith("lightcone serve: ")]
    assert "tiny failed" in line
    assert "start the process again" in line
    assert rows(store) == before, "what was stored before the failure is as it was"
    with serving(*words) as (_, url):
        async with raw_client(url, resuming(welcome, seen[-1].index)) as client:
            assert client.welcome.generation == 1
            picture = await client.frame()
            assert (picture.kind, picture.run, picture.run_frame) == ("start", 1, 5)
            await client.send(Ack(frame=picture.index))
            assert (await acted(client, range(6, 9)))[-1].run_frame == 8


async def test_a_client_waits_for_the_next_process_and_plays_on(tmp_path: Path, words: list[str]) -> None:
    """Its session restarts from the last saved state; the program that uses the client need not do anything."""
    async with AsyncExitStack() as stack:
        with breakable("step", words, tmp_path) as (process, url):
            session = await stack.enter_async_context(connect(url, world="tiny", pacing="lockstep", encoding="png"))
            for _ in range(3):
                await session.advance(["up"])
            await saved_rows(tmp_path / "sessions.db", run_frame=3)
            (tmp_path / "broken").touch()
            await session.act(["up"])
            assert await asyncio.to_thread(process.wait, 30) == 70
        stack.enter_context(serving(*words, port=url.rpartition(":")[2]))
        while (frame := await session.frame()).run == 0:
            pass
        assert (frame.kind, frame.run_frame) == ("start", 3)
        assert (await session.advance(["up"]))[-1].run == 1
        assert session.welcome.generation == 1
        await session.close()


async def saved_rows(store: Path, run_frame: int) -> list[tuple[object, ...]]:
    """Wait until the store's one session has reached `run_frame`."""
    while True:
        if (found := rows(store)) and msgpack.unpackb(found[0][2])["session"]["run"]["frame"] == run_frame:
            return found
        await asyncio.sleep(0.05)


def rows(store: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(store) as file:
        return file.execute("select key, generation, data from sessions order by key").fetchall()


async def test_after_a_failure_nothing_is_suspended_or_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping takes no longer for it, either: nobody waits for sessions that cannot be suspended."""
    config = replace(CONFIG, store=tmp_path / "sessions.db", hold_s=0.0)
    with serve(config, WORLDS) as server:
        async with raw_client(server.url, hello(pacing="lockstep")) as client:
            await client.send(Ack(frame=(await client.frame()).index))
            await acted(client, range(1, 3))
            before = await saved_rows(tmp_path / "sessions.db", run_frame=2)
            server.engine._fail(ArithmeticError("the world is upside down"), "pixel")
            assert (await client.error()).code == "internal"
        async with raw_client(server.url) as late:
            await late.send(resuming(client.welcome, 2))
            error = await late.error()
            assert error.code == "shutting_down", "clients try again after that, and find the next process"
            assert await late.close_code() == 1012
        reply = await asyncio.to_thread(httpx.get, f"{server.url}/readyz")
        assert reply.status_code == 503
        began = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - began < 4
    assert rows(tmp_path / "sessions.db") == before
    assert server.engine.failed_world == "pixel"


async def test_a_session_that_cannot_be_stepped_or_encoded_ends_alone(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with one session's data."""
    async with raw_client(server.url, hello()) as other:
        await other.play(2)
        for owner, name in ((Session, "begin_chunk"), (decode_pipeline, "frame_messages")):
            async with raw_client(server.url, hello()) as failed:
                await failed.play(2)
                key, real = failed.welcome.session, getattr(owner, name)

                def broken(
                    subject: Any, *rest: Any, key: str = key, real: Callable[..., Any] = real, **options: Any
                ) -> Any:
                    if session_key.get() == key or getattr(subject, "key", None) == key:
                        raise KeyError("rudder")
                    return real(subject, *rest, **options)

                with monkeypatch.context() as patch:
                    patch.setattr(owner, name, broken)
                    assert (await failed.error()).code == "internal"
                    assert await failed.close_code() == 1011
            assert len(await other.play(5)) == 5
            await until(lambda: server.engine.num_sessions[0] == 1, "it has left its slot")
    assert server.engine.failure is None
