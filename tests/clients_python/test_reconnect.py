"""The Python client reconnects after a lost connection and resumes its session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from lightcone_client import ConnectionLostError, LightconeClientError, RefusedError, Session, connect, play

from server.config import ServerConfig
from tests.server.serving import RunningServer, serve
from world.testing import tiny_world

CONFIG = ServerConfig(
    address_share=1.0, max_sessions=8, num_threads=1, headroom=None, max_per_address=1000, connections_per_s=1000.0
)


@pytest.fixture(scope="module", params=[30.0, 0.0], ids=["holding-the-slot", "suspended"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with serve(replace(CONFIG, hold_s=request.param), {"pixel": tiny_world}) as running:
        yield running


async def read_until_the_end(session: Session) -> None:
    async for _ in session:
        pass


async def test_in_lockstep_no_act_and_no_frame_is_lost(server: RunningServer) -> None:
    """Cut the connection before and after acts are sent; lost acts are sent again."""
    async with connect(server.url, world="pixel", pacing="lockstep", seed=1) as session:
        assert (await session.frame()).index == 0
        for step in range(1, 31):
            if step % 3 == 0:
                session.cut()
            advancing = asyncio.create_task(session.advance(["up"]))
            if step % 3 == 1:
                while session.seq < step:
                    await asyncio.sleep(0)  # until the act has been sent
                session.cut()
            (frame,) = await advancing
            assert (frame.index, frame.run_frame, frame.applied_seq, frame.run) == (step, step, step, 0)
        assert session.welcome.generation >= 15


async def test_in_real_time_frames_continue_with_rising_indices(server: RunningServer) -> None:
    async with connect(server.url, world="pixel") as session:
        frames = [await session.frame() for _ in range(10)]
        seq = await session.act(["up"])
        session.cut()
        assert await session.act([]) == seq + 1, "acts are accepted during a reconnect"
        frames += [await session.frame() for _ in range(20)]
        assert all(a.index < b.index for a, b in pairwise(frames))
        assert frames[-1].applied_seq == seq + 1
        assert session.welcome.generation == 1
        await session.pause()  # controls work as before


async def test_a_control_pending_when_the_connection_is_lost_raises(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", pacing="lockstep") as session:
        await session.frame()
        forking = asyncio.create_task(session.fork())
        await asyncio.sleep(0)
        session.cut()
        with pytest.raises(ConnectionLostError):
            await forking
        assert (await session.fork()).run_frame == 0, "a repeated request is answered"


async def test_another_program_resumes_the_session_with_its_ticket(server: RunningServer) -> None:
    first = connect(server.url, world="pixel", pacing="lockstep", seed=2)
    session = await first.__aenter__()
    await session.frame()
    for _ in range(5):
        newest = await session.advance(["up"])
    ticket = session.welcome.resume_ticket
    async with connect(server.url, world="pixel", ticket=ticket) as second:
        picture = await second.frame()
        assert (picture.kind, picture.run_frame) == ("start", newest[-1].run_frame)
        (frame,) = await second.advance(["down"])
        assert frame.run_frame == newest[-1].run_frame + 1
        with pytest.raises(RefusedError, match="taken_over"):
            await session.frame()
    await first.__aexit__(None, None, None)


async def test_with_resuming_disabled_a_lost_connection_raises(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", resume_s=0.0) as session:
        await session.frame()
        session.cut()
        with pytest.raises(ConnectionLostError):
            await read_until_the_end(session)
        with pytest.raises(ConnectionLostError):
            await session.act(["up"])


async def test_a_session_that_cannot_be_resumed_raises_the_loss_of_its_connection(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", pacing="lockstep", seed=3) as session:
        await session.frame()
        session._connection.welcome = replace(session.welcome, resume_ticket="no.such")
        session.cut()
        with pytest.raises(ConnectionLostError):
            await session.frame()


async def test_reconnecting_stops_after_resume_s() -> None:
    with serve(CONFIG, {"pixel": tiny_world}) as short_lived:
        async with connect(short_lived.url, world="pixel", resume_s=0.3) as session:
            await session.frame()
            began = time.monotonic()
            await asyncio.to_thread(short_lived.stop)
            with pytest.raises(LightconeClientError):
                await read_until_the_end(session)
            assert time.monotonic() - began < 10


def test_a_synchronous_session_reconnects(server: RunningServer) -> None:
    with play(server.url, world="pixel", pacing="lockstep") as session:
        session.frame()
        for step in range(1, 7):
            session._session.cut()
            assert session.advance(["up"])[0].index == step
