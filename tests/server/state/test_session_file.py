"""What a player keeps and brings back: saved sessions, clips to start from, logs to replay."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightcone_client import Frame as SeenFrame
from lightcone_client import Session, connect, play
from PIL import Image

from server.engine.model_runner import ModelRunner
from server.errors import BadStateError
from server.sessions.run import StartRequest
from server.state.session_file import from_file
from server.wire.protocol import Ack, Frame, Rewind, Save, Saved, Start, StartFrom
from tests.server.raw import Raw, RawClient, hello
from tests.server.resuming import CONFIG, WORLDS, acted, state_of
from tests.server.serving import RunningServer, serve
from world.rollout.snapshots import to_bytes
from world.testing import tiny_world


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serve(replace(CONFIG, hold_s=0.0, max_image_bytes=64 * 1024), WORLDS) as running:
        yield running


async def saved(client: Raw, run_frame: int | None = None) -> Saved:
    await client.send(Save(seq=1, run_frame=run_frame))
    while not isinstance(message := await client.receive(), Saved):
        pass
    return message


def pictures(frames: list[Frame]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(frame.payload))).astype(int) for frame in frames])


@pytest.mark.parametrize("world", ["pixel", "wan"])
@pytest.mark.parametrize("back", [0, 3])
async def test_a_saved_session_continues_elsewhere_as_it_did_here(raw: RawClient, world: str, back: int) -> None:
    """Equal up to rounding, from its newest frame or an earlier one; in a new session and in a running one."""
    chunk = tiny_world(config=world).chunk_pixel_frames
    async with raw(hello(world, pacing="lockstep", start={"index": 1, "seed": 5})) as client:
        await client.send(Ack(frame=(await client.frame()).index))
        before = await acted(client, range(1, 9))
        at = before[-1].run_frame - back * chunk
        file = await saved(client, at if back else None)
        assert file.run_frame == at
        if back:
            await client.send(Rewind(run_frame=at))
            await client.send(Ack(frame=(await client.frame()).index))
        expected = pictures(await acted(client, range(9, 13)))
        for place in ("new session", "running session"):
            if place == "new session":
                opened = raw(hello(world, pacing="lockstep", start={"state": file.file}))
            else:
                opened = raw(hello(world, pacing="lockstep"))
            async with opened as other:
                picture = await other.frame()
                if place == "running session":
                    await other.send(Ack(frame=picture.index))
                    await other.send(Start(start=StartFrom(state=file.file)))
                    picture = await other.frame()
                await other.send(Ack(frame=picture.index))
                assert (picture.kind, picture.run_frame) == ("start", at)
                assert np.abs(pictures([picture]) - pictures(before)[-1 - back * chunk]).max() <= 1
                again = await acted(other, range(9, 13))
                assert again[0].run_frame == at + 1
                assert np.abs(pictures(again) - expected).max() <= 1


async def test_unusable_files_are_refused_and_the_session_plays_on(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep")) as client, raw(hello("wan", pacing="lockstep")) as other:
        for each in (client, other):
            await each.send(Ack(frame=(await each.frame()).index))
        foreign = (await saved(other)).file
        mine = (await saved(client)).file
        content = msgpack.unpackb(mine)
        wrong = (
            foreign,
            b"",
            mine[:-1],
            msgpack.packb({**content, "lightcone": 3}),
            msgpack.packb({**content, "state": b"x"}),
            msgpack.packb({**content, "state": 7}),
            msgpack.packb({**content, "fingerprint": "x"}),
            msgpack.packb([1]),
        )
        for data in wrong:
            await client.send(Start(seq=9, start=StartFrom(state=data)))
            error = await client.error()
            assert (error.code, error.fatal, error.seq) == ("bad_state", False, 9)
        assert len(await acted(client, range(1, 4))) == 3
        await client.send(Start(seq=10, start=StartFrom(state=bytes(65 * 1024))))
        assert (await client.error()).code == "image_too_large"


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_with_the_same_error(data: bytes) -> None:
    runner = ModelRunner(tiny_world(), 1, 1, ())
    for content in (data, msgpack.packb({"lightcone": 1, "fingerprint": runner.fingerprint, "state": data})):
        with pytest.raises(BadStateError):
            from_file("pixel", runner, content)


def test_absurdly_large_frame_numbers_are_refused() -> None:
    runner = ModelRunner(tiny_world(), 1, 1, ())
    runner.start(0, StartRequest())
    state = runner.snapshot(0, exact=False)
    far = 2**60
    moved = replace(state, next_chunk=state.next_chunk + far, history_index=tuple(i + far for i in state.history_index))
    content = {"lightcone": 1, "fingerprint": runner.fingerprint, "state": to_bytes(moved)}
    with pytest.raises(BadStateError):
        from_file("pixel", runner, msgpack.packb(content))


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG"])
async def test_a_clip_fills_the_context_and_a_still_picture_repeats(
    server: RunningServer, raw: RawClient, kind: str
) -> None:
    """Every picture of the clip is in the context; the first one also fills the time before it."""
    shades = [20 * number for number in range(4)]
    moving, still = io.BytesIO(), io.BytesIO()
    images = [Image.fromarray(np.full((32, 32, 3), shade, np.uint8)) for shade in shades]
    images[0].save(
        moving, kind, save_all=True, append_images=images[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    images[-1].save(still, "PNG")
    model = server.engine.world_registry.runner("pixel").world
    for image, expected in ((moving, [0, 0, *shades[1:]]), (still, [60] * 5)):
        async with raw(hello(pacing="lockstep", start={"image": image.getvalue()})) as client:
            assert np.abs(pictures([await client.frame()]) - 60).max() <= 2
            context = state_of(server, client.welcome.session, "pixel").history[-5:]
        clip = torch.tensor(expected, dtype=torch.uint8)[None, :, None, None, None].expand(-1, -1, 32, 32, 3)
        assert torch.allclose(context, model.encode(clip)[0][0], atol=0.05)


async def test_the_client_saves_and_loads_and_replays(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", pacing="lockstep", encoding="png", seed=3) as session:
        start = (await session.frame()).picture
        first = [(await session.advance(["up"] if n % 2 else []))[-1].picture for n in range(6)]
        file, log = await session.save(), await session.action_log()
        assert np.array_equal((await start_again(session)).picture, start)
        again = [chunk[-1].picture async for chunk in session.replay(log)]
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        following = (await session.advance(["down"]))[-1].picture
    async with connect(server.url, world="pixel", pacing="lockstep", encoding="png", state=file) as other:
        assert np.abs((await other.frame()).picture.astype(int) - first[-1]).max() <= 1
        assert np.abs((await other.advance(["down"]))[-1].picture.astype(int) - following).max() <= 1


async def start_again(session: Session) -> SeenFrame:
    await session.start(index=0, seed=3)
    return await session.frame()


def test_the_blocking_client_saves_and_loads_and_replays(server: RunningServer) -> None:
    with play(server.url, world="pixel", pacing="lockstep", encoding="png", seed=3) as session:
        session.frame()
        first = [session.advance(["up"])[-1].picture for _ in range(3)]
        log, file = session.action_log(), session.save()
        assert all(np.array_equal(a, b[-1].picture) for a, b in zip(first, session.replay(log), strict=True))
        session.start(state=file)
        picture = next(frame for frame in session if frame.kind == "start" and frame.run == 2)
        assert picture.run_frame == 3
