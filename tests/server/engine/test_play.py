"""Playing over real sockets: pacing, pausing, starts, receipts, the queue."""

from __future__ import annotations

import asyncio
import io
import time

import numpy as np
import pytest
from PIL import Image

from server.wire.protocol import (
    Act,
    Bye,
    Error,
    Frame,
    Pause,
    Queued,
    Receipt,
    SetSpeed,
    Start,
    StartFrom,
    Step,
    Welcome,
)
from tests.server.raw import Raw, RawClient, hello
from tests.server.serving import RunningServer

WORLDS = ["pixel", "wan"]


def picture(frame: Frame) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(frame.payload)).convert("RGB"))


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((50, 70, 3), value, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


async def quiet(client: Raw, seconds: float = 0.4) -> bool:
    """Return whether no message arrives for a while."""
    try:
        async with asyncio.timeout(seconds):
            await client.socket.recv()
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("world", WORLDS)
async def test_the_first_picture_is_where_the_world_starts(raw: RawClient, world: str) -> None:
    async with raw(hello(world, pacing="lockstep")) as client:  # in real time a busy machine may drop a frame
        first = (await client.play(1))[0]
        assert (first.kind, first.index, first.run, first.run_frame) == ("start", 0, 0, 0)
        info = client.welcome.world
        assert picture(first).shape == (info.height, info.width, 3)
        await client.send(Act(seq=0))
        second = (await client.play(1))[0]
        assert (second.kind, second.run_frame) == ("generated", 1)


@pytest.mark.parametrize("world", WORLDS)
async def test_lockstep_gives_one_chunk_per_act_and_drops_none(raw: RawClient, world: str) -> None:
    async with raw(hello(world, pacing="lockstep")) as client:
        chunk = client.welcome.world.chunk_frames
        await client.play(1)
        assert await quiet(client)
        for seq in range(6):
            await client.send(Act(seq=seq, buttons=("up",), t_client=seq + 0.5))
        frames = await client.play(6 * chunk)
        assert [frame.applied_seq for frame in frames] == [seq for seq in range(6) for _ in range(chunk)]
        assert [frame.t_client_echo for frame in frames[::chunk]] == [seq + 0.5 for seq in range(6)]
        assert [frame.index for frame in frames] == list(range(1, 6 * chunk + 1))
        assert [frame.end_of_chunk for frame in frames] == ([False] * (chunk - 1) + [True]) * 6
        assert await quiet(client)


async def test_real_time_runs_at_the_worlds_rate_and_speed_changes_it(raw: RawClient) -> None:
    async with raw(hello()) as client:
        await client.send(SetSpeed(speed=0.25))
        await client.play(3)
        began = time.monotonic()
        await client.play(6)
        assert time.monotonic() - began > 5 / 7.5 - 0.15  # 30 fps at a quarter of the speed


async def test_a_tap_between_two_ticks_reaches_the_world(raw: RawClient) -> None:
    """Two runs with the same seed differ only in a button pressed and released before the first tick."""
    after: list[np.ndarray] = []
    for buttons in ((), ("up",)):
        async with raw(hello()) as client:
            await client.play(1)
            await client.send(Pause())
            await client.send(Start(start=StartFrom(seed=3)))
            await client.send(Act(seq=0, buttons=buttons))
            await client.send(Act(seq=1))
            await client.send(Step())
            frames = await client.play(2)
            while (frames[-1].run, frames[-1].run_frame) != (1, 1):
                frames += await client.play(1)
            assert frames[-1].applied_seq == 1
            after.append(picture(frames[-1]).astype(int))
    assert np.abs(after[0] - after[1]).max() > 0


async def test_a_pause_stops_the_world_and_a_step_runs_one_chunk(raw: RawClient) -> None:
    async with raw(hello()) as client:
        last = (await client.play(1))[0].index  # a session paused before its start still shows it
        await client.send(Pause(seq=1))
        while not isinstance(message := await client.receive(), Receipt):
            assert isinstance(message, Frame)
            last = message.index
        assert (message.about, message.seq, message.status) == ("control", 1, "applied")
        assert message.frame is not None
        while last < message.frame - 1:
            last = (await client.play(1))[0].index
        assert await quiet(client)
        await client.send(Step(num_chunks=2))
        assert [frame.index for frame in await client.play(2)] == [last + 1, last + 2]
        assert await quiet(client)


@pytest.mark.parametrize("world", WORLDS)
async def test_a_start_from_a_picture_shows_it_and_continues(raw: RawClient, world: str) -> None:
    async with raw(hello(world, pacing="lockstep")) as client:
        await client.play(1)
        await client.send(Start(seq=1, start=StartFrom(image=png(90))))
        still = (await client.play(1))[0]
        assert (still.kind, still.run) == ("start", 1)
        assert (picture(still) == 90).all()
        await client.send(Act(seq=0))
        frames = await client.play(client.welcome.world.chunk_frames)
        assert frames[0].run_frame == 1


async def test_a_paused_session_still_shows_a_new_start(raw: RawClient) -> None:
    async with raw(hello()) as client:
        await client.play(1)
        await client.send(Pause())
        await client.send(Start(start=StartFrom(index=1)))
        frames = await client.play(1)
        while frames[-1].run == 0:
            frames += await client.play(1)
        assert frames[-1].kind == "start"
        assert await quiet(client)


async def test_equal_seeds_give_equal_frames_and_others_do_not(raw: RawClient) -> None:
    seen = []
    for seed in (5, 5, 6):
        async with raw(hello(pacing="lockstep", start={"index": 0, "seed": seed})) as client:
            await client.play(1)
            await client.send(Act(seq=0, buttons=("up",)))
            seen.append((await client.play(1))[0].payload)
    assert seen[0] == seen[1] != seen[2]


async def test_receipts_say_that_an_act_arrived_and_at_which_frame_it_was_applied(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep", receipts=True)) as client:
        await client.play(1)
        await client.send(Act(seq=41))
        messages = [await client.receive() for _ in range(3)]
        received, applied = [m for m in messages if isinstance(m, Receipt)]
        frame = next(m for m in messages if isinstance(m, Frame))
        assert (received.seq, received.status, received.frame) == (41, "received", None)
        assert (applied.seq, applied.status, applied.frame) == (41, "applied", frame.index)


async def test_a_player_without_a_slot_is_queued_until_one_is_free(raw: RawClient, server: RunningServer) -> None:
    async with raw(hello()) as one, raw(hello()), raw(hello()), raw(hello()), raw() as waiting:
        await waiting.send(hello())
        queued = await waiting.receive()
        assert isinstance(queued, Queued)
        assert queued.position == 1
        async with raw() as refused:
            await refused.send(hello())
            error = await refused.receive()
            assert isinstance(error, Error)
            assert (error.code, error.fatal, await refused.close_code()) == ("server_full", True, 1013)
        await waiting.send(Act(seq=0, buttons=("no such button",)))  # ignored in the queue
        await waiting.send(Start(seq=1, start=StartFrom(image=b"no picture")))
        await one.send(Bye())
        assert await one.close_code() == 1000
        assert isinstance(await waiting.receive(), Welcome)
        assert (await waiting.play(2))[1].kind == "generated"
        assert server.engine.num_sessions == (4, 0)


async def test_a_queued_players_picture_is_read_once_there_is_a_slot(raw: RawClient) -> None:
    async with raw(hello()) as one, raw(hello()), raw(hello()), raw(hello()), raw() as waiting:
        await waiting.send(hello(start={"image": b"no picture"}))
        assert isinstance(await waiting.receive(), Queued)
        assert await quiet(waiting)
        await one.send(Bye())
        assert isinstance(await waiting.receive(), Welcome)
        error = await waiting.error()
        assert (error.code, error.fatal, await waiting.close_code()) == ("bad_image", True, 1008)


async def test_a_start_is_sent_while_three_chunks_are_unacknowledged(raw: RawClient) -> None:
    async with raw(hello()) as client:
        await client.play(1)
        while (await client.frame()).chunk < 3:
            pass
        await client.send(Start(seq=1))
        while (frame := await client.frame()).run == 0:
            pass
        assert (frame.kind, frame.run_frame) == ("start", 0)
