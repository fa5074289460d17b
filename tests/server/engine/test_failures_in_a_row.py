"""Failures that concern everybody: slot jobs that fail one after the other, slots that cannot be released. And failures
while a session ends, which concern nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from server.engine.model_runner import ModelRunner
from server.engine.slot_jobs import MAX_FAILED
from server.sessions.run import RunRequest
from server.state.stored_session import SuspendedSession
from server.state.suspended_sessions import SuspendedSessions
from server.wire.protocol import Bye
from tests.server.raw import hello, raw_client
from tests.server.resuming import CONFIG, WORLDS
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until

NUM_SLOTS = 2
Picture = Generator[None, None, NDArray[np.uint8]]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve(replace(CONFIG, max_sessions=NUM_SLOTS, hold_s=0.0), WORLDS) as running:
        yield running


def no_start(_runner: ModelRunner, _slot: int, _request: RunRequest) -> Picture:
    yield
    raise ArithmeticError("out of paint")


async def failed_start(server: RunningServer) -> None:
    async with raw_client(server.url, hello("wan")) as client:
        assert (await client.error()).code == "internal"


async def all_slots_can_be_used(server: RunningServer) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(NUM_SLOTS):
            client = await stack.enter_async_context(raw_client(server.url, hello()))
            assert len(await client.play(2)) == 2
    assert server.engine.failure is None


async def test_slot_jobs_of_several_sessions_that_fail_in_a_row_are_a_failure_of_the_model(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken device may let no session start although nothing is wrong with any of them."""
    monkeypatch.setattr(ModelRunner, "begin", no_start)
    for _ in range(MAX_FAILED):
        assert server.engine.failure is None
        await failed_start(server)
    await until(lambda: server.engine.failure is not None, "the model has failed")
    assert isinstance(server.engine.failure, ArithmeticError)
    assert (server.engine.failed_world, server.engine.is_ready) == ("wan", False)


async def test_a_success_in_between_shows_that_the_model_works(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(ModelRunner, "begin", no_start)
            for _ in range(MAX_FAILED - 1):
                await failed_start(server)
        async with raw_client(server.url, hello()) as client:
            await client.play(2)
    assert server.engine.is_ready


async def test_a_slot_that_cannot_be_released_is_a_failure_of_its_world(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def release(_runner: ModelRunner, _slot: int) -> None:
        raise ArithmeticError("out of paint")

    await until(lambda: not server.engine.world_registry.previews.num_left, "the previews are finished")
    lockstep = hello("pixel", pacing="lockstep")
    async with raw_client(server.url, lockstep) as leaving, raw_client(server.url, hello("wan")) as other:
        await leaving.play(1)
        await other.play(2)
        monkeypatch.setattr(ModelRunner, "release", release)
        await leaving.send(Bye())
        assert (await other.error()).code == "internal"
    assert server.engine.failed_world == "pixel", "not the world of the latest step"


async def test_a_job_that_fails_when_it_is_stopped_harms_nobody(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    real: Callable[..., Picture] = ModelRunner.begin

    def begin(_runner: ModelRunner, _slot: int, _request: RunRequest) -> Picture:
        try:
            while True:
                loop.call_soon_threadsafe(begun.set)
                yield
        finally:
            raise ArithmeticError("out of paint")

    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "begin", begin)
        async with raw_client(server.url, hello()) as client:
            await asyncio.wait_for(begun.wait(), 20)
            await client.send(Bye())
            await client.close_code()
            await until(lambda: "could not be stopped" in caplog.text, "the log has the failure")
    assert ModelRunner.begin is real
    await all_slots_can_be_used(server)


async def test_a_session_that_cannot_be_suspended_ends_alone_and_frees_its_slot(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(_sessions: SuspendedSessions, _suspended: SuspendedSession, _fingerprint: str, _now: float) -> None:
        raise ArithmeticError("out of paper")

    async with raw_client(server.url, hello()) as other:
        await other.play(2)
        with monkeypatch.context() as patch:
            patch.setattr(SuspendedSessions, "put", put)
            async with raw_client(server.url, hello()) as client:
                await client.play(2)
            await until(lambda: server.engine.num_sessions == (1, 0), "the session has ended")
        assert len(await other.play(3)) == 3
    await until(lambda: server.engine.num_sessions == (0, 0), "the other one is suspended")
    await all_slots_can_be_used(server)
