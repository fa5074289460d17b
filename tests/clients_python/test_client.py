"""The Python client against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path

import lightcone_client
import numpy as np
import pytest
import websockets.asyncio.server
from lightcone_client import ConnectionFailedError, Queued, RefusedError, Session, connect, play
from lightcone_client import messages as client_messages
from PIL import Image

from server.config import ServerConfig
from server.errors import ErrorCode
from server.wire import protocol
from tests.server.serving import RunningServer, serve
from world.testing import tiny_world

CONFIG = ServerConfig(address_share=1.0, max_sessions=2, queue_limit=2, num_threads=1, hold_s=0.0, headroom=None)
CLIENT_FOLDER = Path(lightcone_client.__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serve(CONFIG, {"pixel": tiny_world, "wan": partial(tiny_world, config="wan")}) as running:
        yield running


def gray_png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), value, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


async def test_frames_are_decoded_and_acknowledged_as_they_are_taken(server: RunningServer) -> None:
    async with connect(server.url, world="pixel") as session:
        seq = await session.act(["up"])
        frames = []
        async for frame in session:
            frames.append(frame)
            if len(frames) == 10:  # more than may be unacknowledged
                break
        assert frames[0].kind == "start"
        assert (frames[-1].picture.shape, str(frames[-1].picture.dtype)) == ((32, 32, 3), "uint8")
        assert frames[-1].applied_seq == seq
        assert frames[-1].t_client_echo is not None
        assert frames[-1].timings.step_ms > 0
        assert session.world.buttons[0].name == "up"


async def test_without_auto_ack_the_world_pauses(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", auto_ack=False) as session:
        while (frame := await session.frame()).chunk < 2:
            pass
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.frame(), 0.5)
        await session.ack(frame)
        assert (await session.frame()).chunk > 2


@pytest.mark.parametrize(("world", "chunk_frames"), [("pixel", 1), ("wan", 12)])
async def test_lockstep_advances_one_chunk_per_act(server: RunningServer, world: str, chunk_frames: int) -> None:
    async with connect(server.url, world=world, pacing="lockstep", encoding="png") as session:
        assert (await session.frame()).kind == "start"
        for number in range(5):
            chunk = await session.advance(["down"] if number % 2 else [])
            assert [frame.run_frame for frame in chunk] == list(
                range(number * chunk_frames + 1, (number + 1) * chunk_frames + 1)
            )


async def test_axis_movement_changes_the_picture(server: RunningServer) -> None:
    pictures = []
    for value in (-1.0, 1.0):
        async with connect(server.url, world="wan", pacing="lockstep", encoding="png", seed=1) as session:
            pictures.append((await session.advance([], {"axis0": value}))[-1].picture.astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() > 0


async def test_controls_return_once_they_are_applied(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", encoding="png") as session:
        assert (await session.frame()).run == 0  # a start before the first frame would replace the first run
        await session.pause()
        await session.start(image=gray_png(77))
        while (frame := await session.frame()).run == 0:
            pass
        assert (frame.picture == 77).all()
        await session.step(2)
        assert [(await session.frame()).run_frame for _ in range(2)] == [1, 2]
        await session.set_speed(4.0)
        await session.resume()
        assert (await session.frame()).run_frame >= 3
        await session.set_pacing("lockstep")


async def test_a_start_returns_even_if_no_frame_has_been_taken(server: RunningServer) -> None:
    async with connect(server.url, world="pixel") as session:
        async with asyncio.timeout(10):
            while len(session._frames) < session.welcome.limits.max_unacked_chunks:
                await asyncio.sleep(0.01)
            await session.start(index=1)
            await session.start(index=0)
            while (frame := await session.frame()).run < 2:
                pass
        assert frame.kind == "start"


@pytest.mark.parametrize("pacing", ["realtime", "lockstep"])
async def test_the_next_frame_after_a_start_or_a_rewind_is_of_the_new_run(
    server: RunningServer, pacing: lightcone_client.session.Pacing
) -> None:
    async with connect(server.url, world="pixel", pacing=pacing, encoding="png") as session:
        await session.frame()
        await session.act(["up"])
        while not len(session._frames):
            await asyncio.sleep(0.01)
        await session.start(index=1)
        frame = await session.frame()
        assert (frame.kind, frame.run, frame.run_frame) == ("start", 1, 0)
        if pacing == "lockstep":
            await session.advance(["up"])
        await session.rewind(0)
        again = await session.frame()
        assert (again.run, again.run_frame) == (2, 0)
        assert "payload" not in repr(frame), "a printed frame does not flood the screen"


@contextlib.asynccontextmanager
async def scripted_server(server: RunningServer, *messages: bytes) -> AsyncIterator[str]:
    """Serve one connection: the real server's welcome, then `messages` in answer to the first control."""
    async with connect(server.url, world="pixel") as real:
        welcome = client_messages.pack("welcome", **asdict(real.welcome))

    async def serve_one(socket: websockets.asyncio.server.ServerConnection) -> None:
        await socket.recv()
        await socket.send(welcome)
        await socket.recv()
        for message in messages:
            await socket.send(message)
        await socket.wait_closed()

    async with websockets.asyncio.server.serve(serve_one, "127.0.0.1", 0) as scripted:
        yield f"http://127.0.0.1:{scripted.sockets[0].getsockname()[1]}"


async def test_a_control_with_several_receipts_returns_once(server: RunningServer) -> None:
    receipt = client_messages.pack("receipt", about="control", seq=1, status="applied", frame=0)
    last = client_messages.pack("go_away", time_left_s=1.0, reason="over")
    async with scripted_server(server, receipt, receipt, receipt, last) as url, connect(url, world="pixel") as session:
        await asyncio.wait_for(session.pause(), 10)
        async with asyncio.timeout(10):
            while session.go_away is None:
                await asyncio.sleep(0.01)


async def test_a_message_that_cannot_be_handled_ends_the_session_and_every_wait(
    server: RunningServer,
) -> None:
    malformed = client_messages.pack("receipt", about="control", seq=[], status="applied", frame=0)
    async with scripted_server(server, malformed) as url, connect(url, world="pixel") as session:
        with pytest.raises(lightcone_client.ProtocolError, match="failed"):
            await asyncio.wait_for(session.pause(), 10)
        with pytest.raises(lightcone_client.ProtocolError):
            await asyncio.wait_for(session.frame(), 10)


async def test_a_refused_control_raises_and_the_session_continues(server: RunningServer) -> None:
    async with connect(server.url, world="pixel") as session:
        with pytest.raises(RefusedError, match="unknown_start") as caught:
            await session.start(index=99)
        assert (caught.value.code, caught.value.fatal) == ("unknown_start", False)
        assert (await session.frame()).index == 0


async def test_a_refused_act_is_raised_by_the_next_call_of_frame(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", pacing="lockstep") as session:
        await session.frame()
        seq = session._seq = session.seq + 1
        await session._connection.send(client_messages.pack("act", seq=seq, buttons=["jump"], axes={}))
        with pytest.raises(RefusedError, match="jump") as caught:
            await session.frame()
        assert (caught.value.code, caught.value.seq) == ("bad_action", seq)
        assert len(await session.advance(["up"])) == 1


async def test_a_refused_hello_raises_refused_error(server: RunningServer) -> None:
    with pytest.raises(RefusedError, match="atlantis") as caught:
        async with connect(server.url, world="atlantis"):
            pass
    assert (caught.value.code, caught.value.fatal) == ("unknown_world", True)


async def test_connecting_without_a_server_raises_connection_failed_error() -> None:
    with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:9"):
        async with connect("http://127.0.0.1:9", world="pixel"):
            pass


async def test_queue_positions_are_reported_until_the_session_opens(server: RunningServer) -> None:
    positions: list[Queued] = []
    queued = asyncio.Event()

    def on_queued(message: Queued) -> None:
        positions.append(message)
        queued.set()

    async def third_session() -> int:
        async with connect(server.url, world="pixel", on_queued=on_queued) as session:
            return (await session.frame()).index

    async with connect(server.url, world="pixel"):
        async with connect(server.url, world="pixel"):
            task = asyncio.create_task(third_session())
            await asyncio.wait_for(queued.wait(), 10)
        assert await asyncio.wait_for(task, 10) == 0
    assert positions[0].position == 1


async def read_until_the_end(session: Session) -> None:
    async for _ in session:
        pass


async def test_a_stopping_server_announces_it() -> None:
    with serve(CONFIG, {"pixel": tiny_world}) as server:
        async with connect(server.url, world="pixel", resume_s=0.2) as session:
            await session.frame()
            await asyncio.to_thread(server.stop)
            with pytest.raises(RefusedError) as caught:
                await read_until_the_end(session)
            assert caught.value.code == "shutting_down"
            assert session.go_away is not None
            with pytest.raises(RefusedError):
                await session.pause()


def test_the_synchronous_session_does_the_same(server: RunningServer) -> None:
    with play(server.url, world="pixel", pacing="lockstep", encoding="png", seed=5) as session:
        assert session.frame().kind == "start"
        first = [session.advance(["up"])[-1].picture for _ in range(4)]
        session.start(index=0, seed=5)
        assert session.frame().kind == "start"
        again = [session.advance(["up"])[-1].picture for _ in range(4)]
        assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(first, again, strict=True))
        session.set_pacing("realtime")
        for frame in session:
            if frame.index > 15:
                break
        with pytest.raises(RefusedError):
            session.start(index=99)


def test_an_error_inside_a_synchronous_session_propagates_and_frees_the_slot(server: RunningServer) -> None:
    with pytest.raises(ZeroDivisionError), play(server.url, world="pixel"):
        _ = 1 / 0
    with play(server.url, world="pixel") as session:
        assert session.frame().kind == "start"


@pytest.mark.parametrize("model", ["Welcome", "WorldInfo", "Limits", "Frame", "Timings", "Receipt", "Queued", "GoAway"])
def test_the_client_declares_the_fields_of_the_servers_messages(model: str) -> None:
    declared = getattr(client_messages, model)
    assert is_dataclass(declared)
    expected = set(getattr(protocol, model).model_fields) - {"type"}
    assert {field.name for field in fields(declared)} == expected
    assert client_messages.PROTOCOL_VERSION == protocol.PROTOCOL_VERSION


def test_unknown_fields_and_messages_of_a_newer_server_are_ignored() -> None:
    newer = client_messages.pack("queued", position=1, eta_s=None, colour="blue")
    assert client_messages.unpack(newer) == Queued(1, None)
    assert client_messages.unpack(client_messages.pack("weather", sunny=True)) is None


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", client_messages.pack("queued")])
def test_unreadable_messages_raise_protocol_error(data: bytes) -> None:
    with pytest.raises(lightcone_client.ProtocolError):
        client_messages.unpack(data)


def test_importing_the_client_imports_neither_torch_nor_the_server() -> None:
    program = (
        "import sys, lightcone_client; "
        "print([name for name in ('torch', 'pydantic', 'fastapi', 'server', 'world') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=CLIENT_FOLDER, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_error_code_decodes_to_a_refusal() -> None:
    for code in ErrorCode:
        data = protocol.encode(protocol.Error(code=code, message="m", fatal=True))
        assert client_messages.unpack(data) == client_messages.Refusal(code.value, "m", True, None)
