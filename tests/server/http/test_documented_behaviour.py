"""Sentences of the documents that say what happens, each with the server that it is about."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from server.engine.slot_work import SAVE_EVERY_S
from server.http.budgets import (
    BYTES_PER_UNIT,
    CONNECTION,
    FILE,
    FRAME,
    LOG,
    PICTURE,
    READ,
    REQUEST,
    SLOT_JOB,
    STREAM,
    TLS_HANDSHAKE,
)
from server.sessions.pending_requests import INTERVAL_S
from server.wire.protocol import (
    Ack,
    Act,
    ActionLog,
    Bye,
    Error,
    Fork,
    Forked,
    Frame,
    GetLog,
    Pause,
    Play,
    Rewind,
    Save,
    Saved,
    ServerMessage,
    Start,
    StartFrom,
    Step,
    encode,
)
from tests.server.raw import Raw, hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, acted, resuming
from tests.server.serving import RunningServer, serve

_T = TypeVar("_T", bound=ServerMessage)

DOCS = Path(__file__).resolve().parents[3] / "docs"
PROTOCOL, SERVING = (
    re.sub(r"\s+", " ", (DOCS / name).read_text(encoding="utf-8")) for name in ("protocol.md", "serving.md")
)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serve(replace(CONFIG, hold_s=0.0), WORLDS) as running:
        yield running


async def answer(client: Raw, kind: type[_T]) -> _T:
    """Return the next message of a kind; acknowledge frames, fail the test on an error."""
    while not isinstance(message := await client.receive(), kind):
        assert not isinstance(message, Error), message
        if isinstance(message, Frame):
            await client.send(Ack(frame=message.index))
    return message


async def test_where_the_log_begins_after_a_rewind(server: RunningServer) -> None:
    assert (
        "After a rewind, and in a branch, the log begins at that start too: it holds the input up to the "
        "frame that was returned to, and what came since."
    ) in PROTOCOL
    async with raw_client(server.url, hello(pacing="lockstep", start={"index": 0, "seed": 3})) as client:
        await client.play(1)
        await acted(client, range(1, 9))
        await client.send(Rewind(run_frame=5))
        assert (await client.play(1))[0].run_frame == 5
        await acted(client, range(9, 12))
        await client.send(GetLog())
        log = await answer(client, ActionLog)
        assert (log.start_index, log.seed, log.complete) == (0, 3, True)
        assert sum(entry.num_chunks for entry in log.inputs) == 5 + 3
        await client.send(Fork(run_frame=7))
        branch = (await answer(client, Forked)).ticket
    async with raw_client(server.url, hello(pacing="lockstep", start={"branch": branch})) as client:
        await client.play(1)
        await client.send(GetLog())
        log = await answer(client, ActionLog)
        assert (log.start_index, sum(entry.num_chunks for entry in log.inputs)) == (0, 7)


async def test_the_log_of_a_run_from_a_file_says_that_its_past_is_unknown(server: RunningServer) -> None:
    assert "false also for a run from a file, whose past is unknown" in PROTOCOL
    async with raw_client(server.url, hello(pacing="lockstep")) as client:
        await client.play(1)
        await acted(client, range(1, 5))
        await client.send(Save())
        file = (await answer(client, Saved)).file
        await client.send(Start(start=StartFrom(state=file)))
        while (await answer(client, Frame)).kind != "start":
            pass
        await client.send(GetLog())
        log = await answer(client, ActionLog)
    assert (log.start_index, log.complete) == (None, False)


def test_how_much_is_lost_after_a_kill_is_said_once() -> None:
    """`tests/server/state` kills a server; both pages promise twice the interval between two writes."""
    found = [re.findall(r"state at most (\w+) seconds? old", page) for page in (PROTOCOL, SERVING)]
    assert found == [["two"], ["two"]]
    assert 2 * SAVE_EVERY_S == 2.0


@pytest.mark.parametrize(("data", "close"), [(b"\xc1", 1008), (bytes(300_000), 1009)])
async def test_what_1008_and_1009_do_to_a_ticket(server: RunningServer, data: bytes, close: int) -> None:
    assert (
        "Only if the server closes with 1008 or 1009, because of what the client sent, the session ends "
        "at once and its ticket is void."
    ) in PROTOCOL
    async with raw_client(server.url, hello()) as client:
        await client.play(2)
        await client.socket.send(data)
        assert await client.close_code() == close
        welcome = client.welcome
    async with raw_client(server.url) as client:
        await client.send(resuming(welcome, 0))
        error = await client.error()
        assert (error.code, await client.close_code()) == ("unknown_ticket", 1013)


@pytest.mark.parametrize("place", ["held", "suspended", "stored"])
async def test_a_resumed_session_keeps_its_encoding(tmp_path: Path, place: str) -> None:
    assert "it keeps its own `start`, `encodings`, `pacing` and `receipts`" in PROTOCOL
    config = replace(CONFIG, hold_s=60.0 if place == "held" else 0.0)
    config = replace(config, store=tmp_path / "s.db", max_suspended=1) if place == "stored" else config
    with serve(config, WORLDS) as server:
        async with raw_client(server.url, hello(encodings=["png"], pacing="lockstep")) as client:
            await client.play(1)
            welcome = client.welcome
            client.socket.transport.abort()
        async with raw_client(server.url, resuming(welcome, None, encodings=["jpeg"], pacing="realtime")) as client:
            assert (client.welcome.encoding, client.welcome.pacing) == ("png", "lockstep")
            assert (await client.frame()).encoding == "png"


async def test_acts_in_a_paused_lockstep_session_wait(server: RunningServer) -> None:
    assert (
        "In a paused session they wait: `step` applies one in each chunk, the oldest first, and after "
        "`play` the rest are applied."
    ) in PROTOCOL
    async with raw_client(server.url, hello(pacing="lockstep")) as client:
        await client.play(1)
        await client.send(Pause())
        for seq in range(1, 5):
            await client.send(Act(seq=seq))
        await client.send(GetLog(seq=1))
        assert not (await answer(client, ActionLog)).inputs, "none is applied"
        await client.send(Step(num_chunks=2))
        assert [frame.applied_seq for frame in await client.play(2)] == [1, 2]
        await client.send(Play())
        assert [frame.applied_seq for frame in await client.play(2)] == [3, 4]


async def test_what_comes_sooner_than_half_a_second_waits(server: RunningServer) -> None:
    assert f"are carried out at least {INTERVAL_S:g} seconds apart: those that come sooner wait" in PROTOCOL
    async with raw_client(server.url, hello()) as client:
        await client.play(1)
        for seq in range(3):
            await client.send(Fork(seq=seq))
        times = []
        for seq in range(3):
            assert (await answer(client, Forked)).seq == seq, "none is refused"
            times.append(time.monotonic())
        assert times[2] - times[0] > 1.5 * INTERVAL_S


async def test_bye_ends_a_session_and_its_ticket(server: RunningServer) -> None:
    async with raw_client(server.url, hello()) as client:
        await client.play(1)
        welcome = client.welcome
        await client.socket.send(encode(Bye()))
        assert await client.close_code() == 1000
    async with raw_client(server.url) as client:
        await client.send(resuming(welcome, 0))
        assert (await client.error()).code == "unknown_ticket"


def test_the_table_of_costs_is_that_of_the_code() -> None:
    rows = {
        "a connection; a TLS handshake; a request; a stream": (CONNECTION, TLS_HANDSHAKE, REQUEST, STREAM),
        "a frame of the WebSocket protocol; a read; 4 KiB": (FRAME, READ, 4096 / BYTES_PER_UNIT),
        "a log": (LOG,),
        "a start, rewind, fork or save": (SLOT_JOB,),
        "a start from a picture; from a file": (PICTURE, FILE),
    }
    for what, costs in rows.items():
        assert f"| {what} | {'; '.join(f'{cost:g}' for cost in costs)} |" in SERVING
