"""When a connection is lost, nothing of the session is."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from server.wire.protocol import (
    Ack,
    Act,
    Bye,
    Error,
    Fork,
    Frame,
    Pause,
    Queued,
    Receipt,
    Save,
    SetSpeed,
    Start,
    Step,
    Welcome,
)
from tests.server.raw import hello, raw_client
from tests.server.resuming import (
    CONFIG,
    HELD,
    STORED,
    SUSPENDED,
    WORLDS,
    acted,
    assert_same,
    content,
    resuming,
    session_of,
    settled,
    state_of,
)
from tests.server.serving import RunningServer, serve


@pytest.fixture(params=[HELD, SUSPENDED, STORED])
def place(request: pytest.FixtureRequest) -> str:
    """Where the session is while it has no connection."""
    return str(request.param)


@pytest.fixture
def server(place: str, tmp_path: Path) -> Iterator[RunningServer]:
    config = replace(CONFIG, hold_s=60.0 if place == HELD else 0.0)
    if place == STORED:
        config = replace(config, store=tmp_path / "sessions.db", max_suspended=1)
    with serve(config, WORLDS) as running:
        if place == STORED:  # nothing stays in memory
            running.engine._registry.suspended_sessions._max_suspended = 0
        yield running


@pytest.mark.parametrize("world", ["pixel", "wan"])
async def test_in_lockstep_a_resumed_session_continues_bit_by_bit(
    server: RunningServer, place: str, world: str
) -> None:
    """Frames, K/V, latents and index equal those of a twin whose connection was never lost."""
    options: dict[str, object] = {"pacing": "lockstep", "start": {"index": 0, "seed": 7}}
    async with raw_client(server.url, hello(world, **options)) as twin:
        expected = [await twin.frame(), *await acted(twin, range(1, 13))]
        twin_state = state_of(server, twin.welcome.session, world)
    seen: list[Frame] = []
    async with raw_client(server.url, hello(world, **options)) as client:
        welcome = client.welcome
        seen += [await client.frame(), *await acted(client, range(1, 5))]
    for number in range(2):
        await settled(server, welcome.session, hold_s=place == HELD)
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as client:
            assert (client.welcome.session, client.welcome.generation) == (welcome.session, number + 1)
            assert (client.welcome.last_seq, client.welcome.pacing) == (4 + 4 * number, "lockstep")
            assert client.welcome.resume_ticket == welcome.resume_ticket
            seen += await acted(client, range(5 + 4 * number, 9 + 4 * number))
            state = state_of(server, welcome.session, world)
    assert content(seen) == content(expected)
    assert_same(state, twin_state)


async def test_unseen_frames_are_sent_again_and_waiting_acts_are_applied(server: RunningServer, place: str) -> None:
    async with raw_client(server.url, hello(pacing="lockstep", start={"index": 1, "seed": 3})) as client:
        welcome, first = client.welcome, await client.frame()
        await client.send(Ack(frame=first.index))
        for seq in range(1, 7):  # three chunks may be unacked; three acts wait
            await client.send(Act(seq=seq, buttons=("up",)))
        seen = [await client.frame()]
        while session_of(server, welcome.session).num_unacked < 3:
            await asyncio.sleep(0.01)
    await settled(server, welcome.session, hold_s=place == HELD)
    async with raw_client(server.url, resuming(welcome, seen[-1].index)) as client:
        assert client.welcome.last_seq == 6
        while len(seen) < 6:
            seen.append(await client.frame())
            await client.send(Ack(frame=seen[-1].index))
    assert [(frame.index, frame.applied_seq) for frame in seen] == [(n, n) for n in range(1, 7)]


async def test_in_real_time_the_world_pauses_and_frame_numbers_increase(server: RunningServer, place: str) -> None:
    async with raw_client(server.url, hello()) as client:
        welcome, seen = client.welcome, await client.play(8)
        await client.send(Act(seq=5, buttons=("down",)))
        seen += await client.play(4)
        lost = [await client.frame() for _ in range(2)]
    await settled(server, welcome.session, hold_s=place == HELD)
    await asyncio.sleep(0.2)  # six frames long: shows whether the world ran on without its player
    async with raw_client(server.url, resuming(welcome, seen[-1].index)) as client:
        again = await client.play(12)
    assert content(again[:2]) == content(lost)
    numbers = [frame.index for frame in (*seen, *again)]
    assert all(a < b for a, b in pairwise(numbers)), "frame numbers increase"
    steps = [frame.run_frame for frame in again if frame.kind == "generated"]
    assert all(b - a <= 3 for a, b in pairwise(steps)), "the world ran without its player"
    assert all(frame.applied_seq == 5 for frame in again[-4:]), "the held button is still held"


async def test_a_client_without_a_picture_gets_one_first(server: RunningServer, place: str) -> None:
    async with raw_client(server.url, hello()) as client:
        welcome, seen = client.welcome, await client.play(9)
    await settled(server, welcome.session, hold_s=place == HELD)
    async with raw_client(server.url, resuming(welcome, None)) as client:
        picture, *following = await client.play(4)
    assert (picture.kind, picture.run) == ("start", 1)
    assert seen[-1].run_frame <= picture.run_frame <= seen[-1].run_frame + 3
    steps = [frame.run_frame for frame in (picture, *following)]
    assert all(0 < b - a <= 3 for a, b in pairwise(steps)), "it continues from there"


async def test_a_paused_and_unpaced_session_stays_paused_and_unpaced(server: RunningServer, place: str) -> None:
    async with raw_client(server.url, hello()) as client:
        welcome = client.welcome
        seen = await client.play(2)
        await client.send(SetSpeed(speed=None))
        await client.send(Pause(seq=1))
        while not (isinstance(message := await client.receive(), Receipt) and message.seq == 1):
            assert not isinstance(message, Error), message
    await settled(server, welcome.session, hold_s=place == HELD)
    async with raw_client(server.url, resuming(welcome, seen[-1].index + 3)) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.play(10)
        await client.send(Step(num_chunks=2))
        assert len(await client.play(2)) == 2


async def test_two_hundred_lost_connections_under_load(server: RunningServer, place: str) -> None:
    """Four sessions, or six for four slots if slots are not held; one connection after the other is aborted.

    In lock-step no frame comes twice and none is missing; in real time frame numbers increase; no session is lost.
    """
    rng = random.Random(5)
    counts = {"cuts": 0}

    async def play(number: int) -> list[Frame]:
        lockstep = number % 2 == 0
        first = hello(pacing="lockstep" if lockstep else "realtime", start={"index": 0, "seed": number})
        seen: list[Frame] = []
        welcome: Welcome | None = None
        seq = 0
        while counts["cuts"] < 200:
            async with raw_client(server.url) as client:
                await client.send(first if welcome is None else resuming(welcome, seen[-1].index if seen else None))
                while isinstance(message := await client.receive(), Queued):
                    pass
                assert isinstance(message, Welcome), message
                assert welcome is None or message.session == welcome.session
                welcome = message
                seq = seq if message.last_seq is None else max(message.last_seq, 0)
                for turn in range(rng.randrange(1, 8)):
                    if lockstep:
                        seq += 1
                        await client.send(Act(seq=seq, buttons=("up",)))
                    seen.append(await client.frame())
                    # in real time every frame: replaced frames stay in flight until a later one is acked
                    if not lockstep or turn % 2 or rng.random() < 0.5:
                        await client.send(Ack(frame=seen[-1].index))
                await client.send(Ack(frame=seen[-1].index))
                counts["cuts"] += 1
                client.socket.transport.abort()
        return seen

    for number, seen in enumerate(await asyncio.gather(*(play(number) for number in range(4 if place == HELD else 6)))):
        indices = [frame.index for frame in seen]
        assert seen
        if number % 2 == 0:
            assert indices == list(range(len(seen))), "lock-step: none twice, none missing"
            assert [frame.run_frame for frame in seen] == indices
        else:
            assert all(a < b for a, b in pairwise(indices))
        assert {frame.run for frame in seen} == {0}


async def test_players_who_leave_at_any_time_break_nothing(server: RunningServer) -> None:
    """Right after hello, during a start, a fork or a restore; for good, or to resume."""
    rng = random.Random(7)

    async def come_and_go() -> None:
        welcome: Welcome | None = None
        for _ in range(40):
            async with raw_client(server.url, close_timeout=0.1) as client:
                await client.send(hello() if welcome is None else resuming(welcome, None))
                with contextlib.suppress(TimeoutError, ConnectionClosed):
                    async with asyncio.timeout(rng.choice((0.0, 0.002, 0.01, 0.03))):
                        while True:
                            if isinstance(message := await client.receive(), Welcome):
                                welcome = message
                                await client.send(rng.choice((Start(), Fork(), Save(), Step(num_chunks=3))))
                            assert not isinstance(message, Error) or not message.fatal or message.code == "server_full"
                if rng.random() < 0.5:
                    welcome = None
                    with contextlib.suppress(ConnectionClosed):
                        await client.send(Bye())
                client.socket.transport.abort()

    await asyncio.gather(*(come_and_go() for _ in range(6)))
    assert server.engine.failure is None
    server.engine._slot_jobs._work._hold_s = 0.0  # held slots become free
    async with raw_client(server.url) as last:
        await last.send(hello())
        assert len(await last.play(3)) == 3


async def test_resuming_takes_the_session_over_from_an_open_connection(server: RunningServer) -> None:
    """A dead connection can look alive for a long time."""
    async with raw_client(server.url, hello()) as first:
        seen = await first.play(5)
        async with raw_client(server.url, resuming(first.welcome, seen[-1].index)) as second:
            error = await first.error()
            assert (error.code, error.fatal) == ("taken_over", True)
            assert await first.close_code() == 1000
            assert (await second.play(5))[-1].index > seen[-1].index
            assert server.engine.num_sessions == (1, 0)


async def test_a_forged_or_outdated_ticket_is_refused_and_others_play_on(server: RunningServer, place: str) -> None:
    async with raw_client(server.url, hello()) as other, raw_client(server.url, hello()) as client:
        welcome = client.welcome
        await client.play(3)
        await client.send(Bye())
        await client.close_code()
        assert welcome.resume_ticket is not None
        assert other.welcome.resume_ticket is not None
        key, secret = other.welcome.resume_ticket.split(".")
        forged = ("", ".", "nonsense", f"{key}.", f"{key}.{'x' * len(secret)}", f"{key}.{secret[:-1]}", "é.ü")
        for ticket in (*forged, welcome.resume_ticket):
            async with raw_client(server.url) as impostor:
                await impostor.send(hello(resume={"ticket": ticket, "last_frame": 0}))
                error = await impostor.error()
                assert (error.code, error.fatal) == ("unknown_ticket", True)
                assert await impostor.close_code() == 1013
        assert len(await other.play(5)) == 5


async def test_a_session_is_kept_until_it_expires(server: RunningServer, place: str) -> None:
    async with raw_client(server.url, hello()) as client:
        await client.play(2)
        welcome = client.welcome
    if place == HELD:
        return  # it is suspended before it can expire
    await settled(server, welcome.session, hold_s=0)
    engine = server.engine
    engine._registry.suspended_sessions._in_memory.clear()
    if engine.store is not None:
        await asyncio.wrap_future(
            engine.store._work.submit(engine.store._execute, "update sessions set expires_at = 1.0")
        )
    async with raw_client(server.url) as late:
        await late.send(resuming(welcome, 1))
        assert (await late.error()).code == "unknown_ticket"
