"""Hostile, broken and absent clients get typed errors or clean closes, cost bounded memory and disturb nobody."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import msgpack
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed

from server.config import ServerConfig
from server.errors import ImageTooLargeError
from server.http import start_requests
from server.telemetry.metrics import Metrics
from server.wire.clips import read_clip
from server.wire.protocol import Ack, Act, Bye, Error, Fork, Pause, Rewind, SetSpeed, Start, StartFrom, encode
from tests.server.conftest import CONFIG
from tests.server.http.peer import CLOSE, CONTINUATION, TEXT, Peer
from tests.server.raw import Raw, RawClient, hello, raw_client
from tests.server.serving import RunningServer, serve
from tests.server.waiting import wait_for_sessions
from world.testing import tiny_world


@pytest.fixture
async def bystander(raw: RawClient) -> AsyncIterator[Raw]:
    """Another player, who must still be playing after the test."""
    async with raw(hello()) as client:
        await client.play(2)
        yield client
        before = (await client.play(1))[0].index
        assert (await client.play(4))[-1].index >= before + 4


def too_many_pixels() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((4100, 4100), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def too_many_pixels_later() -> bytes:
    """Return a GIF of 10×10 pixels whose second picture is 13,000 pixels wide and high."""
    out = io.BytesIO()
    Image.new("P", (10, 10)).save(out, "GIF")
    second = b",\0\0\0\0" + 2 * (13_000).to_bytes(2, "little") + b"\0\2\2\x4c\1\0"
    return out.getvalue()[:-1] + 2 * second + b";"


@pytest.mark.parametrize(
    ("data", "code", "close"),
    [
        (b"\xc1 nonsense", "bad_message", 1008),
        ("text", "bad_message", 1008),
        (encode(Bye()), "bad_message", 1008),
        (msgpack.packb({"type": "hello", "version": 1}), "bad_message", 1008),
        (encode(hello().model_copy(update={"version": 99})), "bad_version", 1008),
        (encode(hello("atlantis")), "unknown_world", 1008),
        (encode(hello(start={"index": 99})), "unknown_start", 1008),
        (encode(hello(start={"index": 0, "image": b"x"})), "bad_message", 1008),
        (encode(hello(start={"image": b"no picture"})), "bad_image", 1008),
        (encode(hello(start={"image": bytes(70_000)})), "image_too_large", 1008),
        (encode(hello(encodings=["av1"])), "unsupported", 1008),
        (encode(hello(resume={"ticket": "t", "last_frame": 1})), "unknown_ticket", 1013),
        (bytes(300_000), "message_too_large", 1009),
    ],
)
async def test_a_bad_first_message_gets_a_typed_error_and_a_close(
    raw: RawClient, bystander: Raw, data: bytes | str, code: str, close: int
) -> None:
    async with raw() as client:
        await client.socket.send(data)
        error = await client.error()
        assert (error.code, error.fatal) == (code, True)
        assert error.message
        assert "Traceback" not in error.message
        assert await client.close_code() == close


@pytest.mark.parametrize("later", [b"", b"\xff"])
async def test_text_is_refused_without_a_traceback_whether_or_not_it_is_utf_8(
    server: RunningServer, caplog: pytest.LogCaptureFixture, later: bytes
) -> None:
    peer = Peer(server.port)
    peer.shake_hands()
    peer.frame(TEXT, b"\xff", fin=not later)
    if later:
        peer.frame(CONTINUATION, later)
    errors: list[str] = []
    while not errors and peer.read(1.0):
        errors = [message.code for message in peer.messages() if isinstance(message, Error)]
    assert errors == ["bad_message"]
    peer.frame(CLOSE)
    await asyncio.to_thread(peer.until_closed)
    peer.end()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("data", "code", "close"),
    [
        (b"\xff\xff", "bad_message", 1008),
        ("text", "bad_message", 1008),
        (encode(hello()), "bad_message", 1008),
        (bytes(300_000), "message_too_large", 1009),
    ],
)
async def test_a_bad_later_message_ends_the_session_and_frees_its_slot(
    raw: RawClient, bystander: Raw, server: RunningServer, data: bytes | str, code: str, close: int
) -> None:
    async with raw(hello()) as client:
        await client.socket.send(data)
        error = await client.error()
        assert (error.code, error.fatal) == (code, True)
        assert await client.close_code() == close
    await wait_for_sessions(server, 1)


@pytest.mark.parametrize(
    ("message", "code", "seq"),
    [
        (Act(seq=1, buttons=("jump",)), "bad_action", 1),
        (Act(seq=1, axes={"warp": 1.0}), "bad_action", 1),
        (Start(seq=2, start=StartFrom(index=50)), "unknown_start", 2),
        (Start(seq=3, start=StartFrom(image=b"\x89PNG no")), "bad_image", 3),
        (Start(seq=4, start=StartFrom(image=bytes(70_000))), "image_too_large", 4),
        (Start(seq=4, start=StartFrom(image=too_many_pixels())), "image_too_large", 4),
        (Start(seq=4, start=StartFrom(image=too_many_pixels_later())), "image_too_large", 4),
        (Rewind(seq=5, run_frame=10**6), "unknown_frame", 5),
        (Fork(seq=6, run_frame=10**6), "unknown_frame", 6),
        (Start(seq=7, start=StartFrom(branch="none")), "unknown_branch", 7),
    ],
)
async def test_an_error_that_is_not_fatal_leaves_the_session_playing(
    raw: RawClient, message: Act, code: str, seq: int
) -> None:
    async with raw(hello()) as client:
        await client.send(message)
        error = await client.error()
        assert (error.code, error.fatal, error.seq) == (code, False, seq)
        assert error.about == message.type
        await client.send(Ack(frame=2**53 - 1))  # the frames that came before the error
        assert len(await client.play(3)) == 3


async def test_a_message_over_every_limit_is_closed_with_1009(raw: RawClient, bystander: Raw) -> None:
    async with raw(hello()) as client:
        with contextlib.suppress(ConnectionClosed):  # the server may close before everything is sent
            await client.socket.send(os.urandom(2_000_000))
        assert await client.close_code() == 1009


async def test_too_many_pending_acts_in_lockstep_are_refused_one_by_one(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep")) as client:
        for seq in range(100):  # without acks at most two chunks are sent
            await client.send(Act(seq=seq))
        error = await client.error()
        assert (error.code, error.fatal) == ("too_many_pending", False)


async def test_a_client_that_answers_every_frame_is_not_rate_limited() -> None:
    with serve(
        ServerConfig(num_threads=1, max_messages_per_s=20.0, address_budget=1e6), {"pixel": tiny_world}
    ) as server:
        async with raw_client(server.url, hello(pacing="lockstep")) as client:
            await client.play(1)
            for seq in range(200):
                await client.send(Act(seq=seq))
                await client.play(1)
            with contextlib.suppress(ConnectionClosed):
                for seq in range(200, 300):
                    await client.send(Act(seq=seq))
            while (error := await client.error()).code == "too_many_pending":
                pass
            assert error.code == "rate_limited", "acts without frames still count"


async def test_a_flood_of_messages_is_cut_off(raw: RawClient, bystander: Raw, server: RunningServer) -> None:
    async with raw(hello()) as client:
        with contextlib.suppress(ConnectionClosed):
            for seq in range(2000):
                await client.send(Act(seq=seq))
        error = await client.error()
        assert (error.code, error.fatal) == ("rate_limited", True)
        assert await client.close_code() == 1008
    await wait_for_sessions(server, 1)


async def test_errors_with_the_same_code_are_logged_once(raw: RawClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with raw(hello()) as client:
        for seq in range(20):
            await client.send(Act(seq=seq, buttons=("jump",)))
            assert (await client.error()).seq == seq
    assert caplog.text.count("bad_action") == 1


async def test_pictures_are_decoded_one_at_a_time(raw: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []
    num_running: list[int] = []

    def slow_read(data: bytes, *shape: int, **limits: int) -> np.ndarray:
        running.append(1)
        num_running.append(len(running))
        time.sleep(0.1)
        running.pop()
        return read_clip(data, *shape, **limits)

    monkeypatch.setattr(start_requests, "read_clip", slow_read)
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 70, dtype=np.uint8)).save(out, "PNG")
    with_picture = hello(start={"image": out.getvalue()})
    async with raw(with_picture) as one, raw(with_picture) as two, raw(with_picture) as three:
        for client in (one, two, three):
            assert (np.asarray(Image.open(io.BytesIO((await client.frame()).payload))) == 70).all()
    assert num_running == [1, 1, 1]


async def test_a_client_that_never_says_hello_is_disconnected(raw: RawClient, bystander: Raw) -> None:
    async with raw() as client:
        error = await client.error()
        assert error.code == "handshake_timeout"
        assert await client.close_code() == 1008


@pytest.mark.parametrize("sends", ["nothing", "half a line", "endless headers", "a request, then half of one"])
async def test_a_client_that_never_finishes_a_request_is_disconnected(
    server: RunningServer, bystander: Raw, sends: str
) -> None:
    """Slowloris: sending a byte now and then keeps no connection open for longer than a handshake may take."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    if sends == "a request, then half of one":
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read(1000)).startswith(b"HTTP/1.1 200")
    if sends != "nothing":
        writer.write(b"GET /healthz HTTP/1.1\r\nHos")
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while sends != "endless headers" and time.monotonic() < began + 10 and await reader.read(1000):
            pass
        while sends == "endless headers" and time.monotonic() < began + 10 and not reader.at_eof():
            writer.write(b": x\r\nHos")
            await asyncio.sleep(0.05)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1000), 0.01)
    assert CONFIG.handshake_timeout_s * 0.9 < time.monotonic() - began < 5
    writer.close()


async def test_a_request_that_is_answered_slowly_is_not_cut_off(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_self: Metrics) -> bytes:
        time.sleep(CONFIG.handshake_timeout_s + 0.2)
        return b"slow"

    monkeypatch.setattr(Metrics, "text", slow)
    async with httpx.AsyncClient(timeout=10) as client:
        assert (await client.get(f"{server.url}/metrics")).text == "slow"


async def write_for_ever(client: Raw) -> None:
    while True:
        client.socket.transport.write(b"x")
        await asyncio.sleep(0.05)


async def test_a_client_that_never_finishes_a_message_counts_as_idle() -> None:
    """Half a WebSocket message is no message. The session is kept, as for any other silent client."""
    with serve(replace(CONFIG, idle_timeout_s=0.4, resume_s=60.0), {"pixel": tiny_world}) as server:
        async with raw_client(server.url, hello(), close_timeout=0.1) as client:
            await client.send(Pause())
            client.socket.transport.write(bytes([0x82, 0xFE, 0x10, 0x00, 1, 2, 3, 4]))
            trickle = asyncio.create_task(write_for_ever(client))
            assert (await client.error()).code == "idle"
            trickle.cancel()


@pytest.mark.parametrize("offers", ["deflate", "nothing"])
async def test_a_compression_bomb_is_not_decompressed(server: RunningServer, bystander: Raw, offers: str) -> None:
    """The server does not accept compression, and refuses a message marked as compressed without decompressing it."""
    options = {"compression": "deflate"} if offers == "deflate" else {}
    async with raw_client(server.url, hello(), **options) as client:
        assert not client.socket.protocol.extensions
        bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)[2:-4]
        mask = bytes(4)
        client.socket.transport.write(bytes([0xC2, 0xFF]) + len(bomb).to_bytes(8, "big") + mask + bomb)
        assert await client.close_code() in (1002, 1006, None)
    assert len(await bystander.play(3)) == 3


def test_a_picture_bomb_is_refused_before_it_is_decoded() -> None:
    """A picture of 400 megapixels in a few kilobytes, and a clip of 20 pictures of one megapixel each."""
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    began = time.monotonic()
    with pytest.raises(ImageTooLargeError):
        read_clip(out.getvalue(), 32, 32, max_bytes=10**6, max_pixels=2048 * 2048)
    clip = io.BytesIO()
    frames = [Image.new("P", (1000, 1000), n % 2) for n in range(20)]
    frames[0].save(clip, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageTooLargeError, match="20 pictures"):
        read_clip(clip.getvalue(), 32, 32, max_bytes=10**6, max_pixels=2048 * 2048)
    assert time.monotonic() - began < 2


async def test_a_page_from_another_origin_is_refused(raw: RawClient) -> None:
    async with raw(origin="https://evil.example.org") as client:
        error = await client.error()
        assert error.code == "origin_refused"
        assert await client.close_code() == 1008


async def test_a_client_that_never_acks_gets_three_chunks_and_no_more_is_buffered(
    raw: RawClient, bystander: Raw, server: RunningServer
) -> None:
    async with raw(hello()) as client:
        await client.send(SetSpeed(speed=None))
        while (await client.frame()).chunk < 2:  # on a slow machine a newer chunk may replace chunk 1
            pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await client.socket.recv()
        assert server.engine.backlogs()[client.welcome.session][0] == 0
        await client.send(Ack(frame=2))
        assert (await client.frame()).chunk > 2


@pytest.mark.parametrize("manner", ["abort", "half a message", "close without close frame"])
async def test_a_client_that_vanishes_mid_frame_frees_its_slot(
    raw: RawClient, bystander: Raw, server: RunningServer, manner: str
) -> None:
    async with raw(hello()) as client:
        await client.send(SetSpeed(speed=None))
        await client.frame()
        if manner == "half a message":
            client.socket.transport.write(b"\x82\xfe\x10\x00maskhalf of it")
            await asyncio.sleep(0.05)  # time for the server to read it
        if manner == "close without close frame":
            client.socket.transport.close()
        else:
            client.socket.transport.abort()
        await wait_for_sessions(server, 1)
