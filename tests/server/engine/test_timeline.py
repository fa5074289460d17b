"""Rewinding, branching and replaying over real sockets, and the moving previews of the worlds."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from server.sessions import branches
from server.wire.protocol import (
    Ack,
    Act,
    ActionLog,
    Error,
    Fork,
    Forked,
    Frame,
    GetLog,
    Pause,
    Play,
    Receipt,
    Rewind,
    Start,
    StartFrom,
    Step,
)
from tests.server.raw import Raw, RawClient, hello
from tests.server.serving import RunningServer
from tests.server.waiting import until
from world import Rollout

WORLDS = ["pixel", "wan"]
BUTTONS = [("up",), (), ("down",), ("up",), (), ("up",), ("down",), ()]


def pixels(frame: Frame) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(frame.payload)).convert("RGB")).astype(int)


async def acted(client: Raw, first: int, buttons: list[tuple[str, ...]]) -> list[Frame]:
    """Send one lock-step act per entry, numbered from `first`. Return the frames of their chunks."""
    for number, held in enumerate(buttons):
        await client.send(Act(seq=first + number, buttons=held))
    return await client.play(len(buttons) * client.welcome.world.chunk_frames)


async def answer(client: Raw, kind: type[Forked] | type[ActionLog]) -> Forked | ActionLog:
    while not isinstance(message := await client.receive(), kind):
        assert not isinstance(message, Error), message
    return message


@pytest.mark.parametrize("world", WORLDS)
async def test_a_rewind_shows_its_frame_and_the_same_acts_give_the_same_frames(raw: RawClient, world: str) -> None:
    async with raw(hello(world, pacing="lockstep", start={"index": 0, "seed": 5})) as client:
        chunk = client.welcome.world.chunk_frames
        await client.play(1)
        frames = await acted(client, 0, BUTTONS)
        await client.send(Rewind(seq=1, run_frame=3 * chunk))
        still = (await client.play(1))[0]
        assert (still.kind, still.run, still.run_frame) == ("start", 1, 3 * chunk)
        assert still.index == frames[-1].index + 1
        assert np.array_equal(pixels(still), pixels(frames[3 * chunk - 1]))
        again = await acted(client, 100, BUTTONS[3:])
        assert [frame.payload for frame in again] == [frame.payload for frame in frames[3 * chunk :]]
        assert [frame.run_frame for frame in again] == [frame.run_frame for frame in frames[3 * chunk :]]


async def test_a_paused_session_rewinds_and_stays_paused(raw: RawClient) -> None:
    async with raw(hello()) as client:
        await client.play(6)
        await client.send(Pause())
        await client.send(Rewind(seq=7, run_frame=2))
        while not (isinstance(message := await client.receive(), Receipt) and message.seq == 7):
            assert not isinstance(message, Error), message
        while (frame := await client.frame()).run == 0:
            pass
        assert (frame.kind, frame.run_frame) == ("start", 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.frame(), 0.4)
        await client.send(Step())
        assert (await client.play(1))[0].run_frame == 3
        await client.send(Play())
        assert (await client.play(1))[0].run_frame > 3, "in real time a frame may be dropped"


@pytest.mark.parametrize("world", WORLDS)
async def test_a_branch_is_a_separate_session(raw: RawClient, world: str) -> None:
    async with raw(hello(world, pacing="lockstep", start={"index": 0, "seed": 5})) as one:
        chunk = one.welcome.world.chunk_frames
        await one.play(1)
        frames = await acted(one, 0, BUTTONS)
        await one.send(Fork(seq=3, run_frame=2 * chunk))
        forked = await answer(one, Forked)
        assert isinstance(forked, Forked)
        assert (forked.seq, forked.run_frame) == (3, 2 * chunk)
        assert forked.expires_s > 10
        async with raw(hello(world, pacing="lockstep", start={"branch": forked.ticket})) as two:
            still = (await two.play(1))[0]
            assert (still.kind, still.run, still.run_frame) == ("start", 0, 2 * chunk)
            assert np.array_equal(pixels(still), pixels(frames[2 * chunk - 1]))
            same = await acted(two, 0, BUTTONS[2:])
            assert [f.payload for f in same] == [f.payload for f in frames[2 * chunk :]], "under the same input"
            await two.send(Rewind(run_frame=2 * chunk))
            await two.play(1)
            other = await acted(two, 100, [("down",)] * 6)
            assert [f.payload for f in other] != [f.payload for f in same]
        following = await acted(one, 100, [("up",)])
        assert following[-1].run_frame == 9 * chunk, "the branched session continues unchanged"


@pytest.mark.parametrize("world", WORLDS)
async def test_replaying_the_log_of_a_real_time_run_gives_the_same_frames(raw: RawClient, world: str) -> None:
    async with raw(hello(world)) as one:
        axes = {axis.name: 0.25 for axis in one.welcome.world.axes}
        chunk = one.welcome.world.chunk_frames
        seen = await one.play(1 + 2 * chunk)
        await one.send(Act(seq=0, buttons=("up",), axes=axes))
        seen += await one.play(4 * chunk)
        await one.send(Act(seq=1))
        await one.send(Pause())
        await one.send(GetLog(seq=2))
        log = await answer(one, ActionLog)
        assert isinstance(log, ActionLog)
    assert (log.seq, log.start_index, log.complete) == (2, 0, True)
    inputs = [entry for entry in log.inputs for _ in range(entry.num_chunks)]
    assert any(entry.buttons == ("up",) for entry in inputs)
    assert not axes or any(entry.axes == axes for entry in inputs)
    start = {"index": log.start_index, "seed": log.seed}
    async with raw(hello(world, pacing="lockstep", start=start)) as two:
        again = await two.play(1)
        for number, entry in enumerate(inputs):
            await two.send(Act(seq=number, buttons=entry.buttons, axes=entry.axes))
            again += await two.play(two.welcome.world.chunk_frames)
    replayed = {frame.run_frame: frame.payload for frame in again}
    assert [replayed[frame.run_frame] for frame in seen] == [frame.payload for frame in seen]


async def test_unreachable_frames_and_unknown_branches_are_refused_without_loss(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        await client.send(Rewind(seq=1, run_frame=5))
        error = await client.error()
        assert (error.code, error.fatal, error.seq) == ("unknown_frame", False, 1)
        assert "0 to 0" in error.message
        await client.send(Start(seq=2, start=StartFrom(branch="no such")))
        error = await client.error()
        assert (error.code, error.fatal, error.seq) == ("unknown_branch", False, 2)
        assert (await acted(client, 0, [("up",)]))[0].run_frame == 1
    async with raw() as client:
        await client.send(hello(start={"branch": "no such"}))
        error = await client.error()
        assert (error.code, error.fatal, await client.close_code()) == ("unknown_branch", True, 1008)
    async with raw() as client:
        await client.send(hello(start={"branch": "a", "index": 0}))
        assert (await client.error()).code == "bad_message"


async def test_forks_requested_before_and_after_a_rewind(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        await acted(client, 0, BUTTONS)
        await client.send(Fork(seq=1, run_frame=8))
        await client.send(Rewind(seq=2, run_frame=2))
        forked = await answer(client, Forked)
        assert isinstance(forked, Forked)
        assert forked.run_frame == 8, "of the run before the rewind"
        while (still := await client.frame()).run == 0:
            pass
        await client.send(Ack(frame=still.index))
        await client.send(Fork(seq=3, run_frame=8))
        error = await client.error()
        assert (error.code, error.fatal, error.seq) == ("unknown_frame", False, 3)
        assert (await acted(client, 100, [()]))[0].run_frame == 3


async def test_others_play_on_during_a_long_rewind(
    raw: RawClient, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewind takes many passes of the model; they are spread over the ticks of other sessions."""
    ticks: list[int] = []
    real = Rollout._advance

    def advance(rollout: Rollout, slots: list[int], *rest: Any) -> None:
        if slots == [0]:
            ticks.append(server.engine.num_ticks)
        time.sleep(0.02)
        real(rollout, slots, *rest)

    async with raw(hello(pacing="lockstep")) as one, raw(hello()) as two:
        await one.play(1)
        await acted(one, 0, [()] * 31)
        playing = asyncio.create_task(two.play(1000))
        before = server.engine.num_ticks
        await until(lambda: server.engine.num_ticks > before + 5, "the other session plays")
        monkeypatch.setattr(Rollout, "_advance", advance)
        await one.send(Rewind(seq=1, run_frame=20))
        assert (await one.play(1))[0].run_frame == 20
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    assert len(ticks) > 10
    assert len(set(ticks)) > len(ticks) / 3, "the other session was stepped between the passes"


async def test_leaving_during_a_rewind_leaves_nothing_behind(raw: RawClient, server: RunningServer) -> None:
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        await acted(client, 0, [()] * 31)
        await client.send(Rewind(seq=1, run_frame=30))
        await client.send(Fork(seq=2, run_frame=20))
    runner = server.engine.world_registry.runner("pixel")
    deadline = time.monotonic() + 10
    while used := [slot for slot in list(runner._rollout._slots) if slot < runner.num_slots]:
        assert time.monotonic() < deadline, f"still in use: slots {used}"
        await asyncio.sleep(0.05)
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        assert (await acted(client, 0, [()]))[0].run_frame == 1


async def test_too_frequent_requests_for_the_log_are_refused(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        for seq in range(8):
            await client.send(GetLog(seq=seq))
        error = await client.error()
        assert (error.code, error.fatal) == ("too_many_pending", False)


async def test_an_unused_branch_expires(raw: RawClient, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "LIFETIME_S", 0.3)
    held_branches = server.engine._slot_jobs._branches._branches
    held_branches.clear()  # those of other tests expire later, and the oldest is dropped first
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        await client.send(Fork(seq=1))
        await answer(client, Forked)
        assert held_branches
        deadline = time.monotonic() + 10
        while held_branches:
            assert time.monotonic() < deadline, "it expires although nothing else happens on the server"
            await asyncio.sleep(0.05)


async def test_a_branch_cannot_start_another_world(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        await client.send(Fork(seq=1))
        forked = await answer(client, Forked)
        assert isinstance(forked, Forked)
        async with raw() as other:
            await other.send(hello("wan", start={"branch": forked.ticket}))
            assert (await other.error()).code == "unknown_branch"


async def test_a_rewind_to_the_limit_of_a_long_fast_run_succeeds(raw: RawClient) -> None:
    """As far back as the limit allows, in a session that runs as fast as it can."""
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        for first in range(0, 640, 32):
            await acted(client, first, [()] * 32)
        limit = client.welcome.limits.timeline_frames
        await client.send(Rewind(seq=1, run_frame=640 - limit))
        assert (await client.play(1))[0].run_frame == 640 - limit
        await client.send(Rewind(seq=2, run_frame=0))
        assert (await client.error()).code == "unknown_frame", "older frames are no longer kept"
        assert (await acted(client, 1000, [()]))[0].run_frame == 641 - limit


async def test_every_world_has_a_moving_preview(server: RunningServer) -> None:
    deadline = time.monotonic() + 20
    for world in WORLDS:
        address = f"{server.url}/v1/worlds/{world}/preview"
        while (reply := await asyncio.to_thread(httpx.get, address)).status_code == 503:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        picture = Image.open(io.BytesIO(reply.content))
        assert (reply.headers["content-type"], picture.format) == ("image/webp", "WEBP")
        assert getattr(picture, "n_frames", 1) > 10
    missing = await asyncio.to_thread(httpx.get, f"{server.url}/v1/worlds/atlantis/preview")
    assert missing.status_code == 404
    assert "atlantis" in missing.json()["error"]
