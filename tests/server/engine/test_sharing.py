"""Sessions share each forward pass without any effect on their frames."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial

import numpy as np
import pytest
from PIL import Image

from server.config import ServerConfig
from server.wire.protocol import Ack, Act, Frame, Pause, Play
from tests.server.raw import Raw, hello, raw_client
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world import World
from world.testing import tiny_world

NUM_STEPS = 2
SHARED = ServerConfig(address_share=1.0, max_sessions=4, num_threads=1, resume_s=0.0, headroom=None)
PADDED = ServerConfig(
    address_share=1.0, max_sessions=4, max_batch=4, buckets=(4,), num_threads=1, resume_s=0.0, headroom=None
)


@pytest.fixture(scope="module", params=["pixel", "wan"])
def world(request: pytest.FixtureRequest) -> World:
    return tiny_world(config=request.param, num_steps=NUM_STEPS)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[RunningServer]:
    with serve(SHARED, {"world": lambda: world}) as server:
        yield server


async def settled(server: RunningServer) -> int:
    """Return the number of ticks once all sessions are paused and every frame that was begun has been sent.

    The previews, whose passes count too, are finished then.
    """

    def is_settled() -> bool:
        with server.engine._lock:
            entries = server.engine._registry.entries.values()
            paused = all(entry.session._pace.is_paused for entry in entries)
            sent = all(entry.send_queue.last_taken == entry.session.last_index >= 0 for entry in entries)
        return paused and sent and not server.engine.world_registry.previews.num_left

    await until(is_settled, "every session is paused and no frame is under way")
    return server.engine.num_ticks


@pytest.mark.parametrize("num_sessions", [1, 3])
async def test_a_tick_is_one_forward_per_stage_however_many_play(
    running: RunningServer, world: World, num_sessions: int
) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(raw_client(running.url, hello("world"))) for _ in range(num_sessions)
        ]
        for client in clients:
            await client.send(Pause())
            await client.play(1)
        ticks, forwards = await settled(running), world.forward_calls
        for client in clients:
            await client.send(Play())
        num_frames = 8 * world.chunk_pixel_frames
        played = await asyncio.gather(*[client.play(num_frames) for client in clients])
        for client in clients:
            await client.send(Pause())
        num_ticks = await settled(running) - ticks
        assert num_ticks >= 5  # one or two frames may have been in flight before the pause
        assert world.forward_calls - forwards == NUM_STEPS * num_ticks
        shared = [frame.timings.batch_size for frames in played for frame in frames if frame.kind == "generated"]
        assert np.median(shared) == num_sessions


def decoded(frames: list[Frame]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(frame.payload))) for frame in frames]).astype(int)


async def act_and_see(client: Raw, chunk_frames: int, buttons: list[tuple[str, ...]]) -> np.ndarray:
    """Return the lock-step pictures that follow these acts, `n h w 3`."""
    frames = await client.play(1)
    for seq, held in enumerate(buttons):
        await client.send(Act(seq=seq, buttons=held))
        frames += await client.play(chunk_frames)
    return decoded(frames)


BUTTONS: list[tuple[str, ...]] = [("up",), (), ("down",), ("up",), ("up", "down"), ()]


async def test_a_session_among_others_gets_the_frames_it_gets_alone(running: RunningServer, world: World) -> None:
    see = partial(act_and_see, chunk_frames=world.chunk_pixel_frames)
    mine = hello("world", pacing="lockstep", start={"index": 1, "seed": 7})
    async with raw_client(running.url, mine) as client:
        alone = await see(client, buttons=BUTTONS)
    others = hello("world", pacing="lockstep", start={"index": 0, "seed": 8})
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(running.url, h)) for h in (others, mine, others)]
        orders = [BUTTONS[::-1], BUTTONS, BUTTONS]
        seen = await asyncio.gather(*[see(c, buttons=order) for c, order in zip(clients, orders, strict=True)])
    together: np.ndarray = seen[1]
    assert np.abs(together - alone).max() <= 1  # rounding: one grey level at most
    assert np.abs(np.diff(alone, axis=0)).mean() > 1  # the pictures do change


async def test_padding_to_a_bucket_changes_no_session(running: RunningServer, world: World) -> None:
    see = partial(act_and_see, chunk_frames=world.chunk_pixel_frames, buttons=BUTTONS)
    mine = hello("world", pacing="lockstep", start={"index": 1, "seed": 7})
    async with raw_client(running.url, mine) as client:
        plain = await see(client)
    with serve(PADDED, {"world": lambda: world}) as server:
        async with raw_client(server.url, mine) as client:
            padded = await see(client)
    assert np.abs(padded - plain).max() <= 1


async def test_acknowledging_a_frame_twice_does_no_harm(running: RunningServer) -> None:
    async with raw_client(running.url, hello("world")) as client:
        first = await client.play(4)
        await client.send(Ack(frame=first[-1].index))
        assert (await client.play(1))[0].index > first[-1].index
