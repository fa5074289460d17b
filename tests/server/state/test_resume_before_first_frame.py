"""Connections that are lost before the session's first frame: whatever `last_frame` the client then claims, resuming is
all or nothing, and no slot is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from server.engine.slot_jobs import SlotJobs
from server.wire.protocol import Ack, Act, Fork, Forked, Frame, Queued, SetPacing, Welcome
from tests.server.raw import Raw, hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, resuming, session_of, settled
from tests.server.serving import RunningServer, serve

NUM_SLOTS = 3


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve(replace(CONFIG, max_sessions=NUM_SLOTS, hold_s=0.5), WORLDS) as running:
        yield running


@pytest.fixture
def may_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, no slot job begins: sessions have slots with nothing in them."""
    event, real = threading.Event(), SlotJobs._next

    def next_job(slot_jobs: SlotJobs) -> object:
        return real(slot_jobs) if event.is_set() else None

    monkeypatch.setattr(SlotJobs, "_next", next_job)
    yield event
    event.set()


async def held(server: RunningServer, keys: list[str]) -> None:
    while not all(session_of(server, key).life.is_held for key in keys):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("last_frame", [0, 5, 10**9, 2**53 - 1, None])
async def test_any_last_frame_resumes_and_every_slot_can_be_used_again(
    server: RunningServer, may_start: threading.Event, last_frame: int | None
) -> None:
    welcomes: list[Welcome] = []
    for _ in range(NUM_SLOTS):
        async with raw_client(server.url, hello()) as client:
            welcomes.append(client.welcome)
            client.socket.transport.abort()
    await held(server, [welcome.session for welcome in welcomes])
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(raw_client(server.url, resuming(welcome, last_frame)))
            for welcome in welcomes
        ]
        may_start.set()
        for client, welcome in zip(clients, welcomes, strict=True):
            assert (client.welcome.session, client.welcome.generation) == (welcome.session, 1)
            first, *following = await client.play(3)
            assert (first.kind, first.index, first.run) == ("start", 0, 0)
            assert all(frame.run == 0 for frame in following)
        assert server.engine.num_sessions == (NUM_SLOTS, 0)
    for welcome in welcomes:
        await settled(server, welcome.session, hold_s=0.0)
    await all_slots_are_free(server)


@pytest.mark.parametrize("last_frame", [0, 10**9])
async def test_who_resumes_and_is_lost_again_before_the_first_frame_loses_no_slot_either(
    server: RunningServer, may_start: threading.Event, last_frame: int
) -> None:
    async with raw_client(server.url, hello()) as client:
        welcome = client.welcome
        client.socket.transport.abort()
    for _ in range(3):
        await held(server, [welcome.session])
        async with raw_client(server.url, resuming(welcome, last_frame)) as client:
            client.socket.transport.abort()
    may_start.set()
    await settled(server, welcome.session, hold_s=0.0)
    await all_slots_are_free(server)


async def all_slots_are_free(server: RunningServer) -> None:
    """As many as there are slots join and play; one more is queued."""
    async with AsyncExitStack() as stack:
        for _ in range(NUM_SLOTS):
            client: Raw = await stack.enter_async_context(raw_client(server.url, hello()))
            assert len(await client.play(2)) == 2
        surplus = await stack.enter_async_context(raw_client(server.url))
        await surplus.send(hello())
        assert isinstance(await surplus.receive(), Queued)


async def test_acts_before_the_first_start_do_not_hold_it_up(server: RunningServer, may_start: threading.Event) -> None:
    """In lock-step a start follows the acts sent before it; but in an empty slot nothing can apply them."""
    async with raw_client(server.url, hello()) as client:
        await client.send(SetPacing(pacing="lockstep"))
        await client.send(Act(seq=1, buttons=("up",)))
        while session_of(server, client.welcome.session).last_seq < 1:
            await asyncio.sleep(0.005)
        with server.engine._lock:
            session_of(server, client.welcome.session)._start_after_seq = 1  # as if its picture had come later
        may_start.set()
        assert (await client.play(1))[0].kind == "start"
        assert (await client.play(1))[0].applied_seq == 1


async def test_a_fork_before_the_start_of_a_resumed_session_waits_for_the_start(
    tmp_path: Path, may_start: threading.Event
) -> None:
    """A session that its server could not suspend restarts from its last saved state; until then its slot is empty."""
    may_start.set()
    config = replace(CONFIG, store=tmp_path / "s.db")
    with serve(config, WORLDS) as first:
        async with raw_client(first.url, hello(pacing="lockstep")) as client:
            await client.send(Ack(frame=(await client.frame()).index))
            while not await saved(first):
                await asyncio.sleep(0.05)
            welcome = client.welcome
            first.engine._registry._writes = False  # as if the process had been killed
            client.socket.transport.abort()
    with serve(config, WORLDS) as second:
        may_start.clear()
        async with raw_client(second.url, resuming(welcome, 0)) as client:
            await client.send(Fork(seq=4))
            while second.engine._registry._table.entries[welcome.session].session._pending.fork_at() > 1e9:
                await asyncio.sleep(0.005)
            may_start.set()
            messages = [await client.receive() for _ in range(2)]
            assert isinstance(messages[0], Frame)
            assert messages[0].kind == "start"
            await client.send(Ack(frame=messages[0].index))
            assert isinstance(messages[1], Forked)


async def saved(server: RunningServer) -> bool:
    assert server.engine.store is not None
    work = server.engine.store._work.submit(
        lambda: server.engine.store._file.execute("select count(*) from sessions").fetchone()  # type: ignore[union-attr]  # asserted
    )
    return bool((await asyncio.wrap_future(work))[0])
