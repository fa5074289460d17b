"""Resuming after a failure: what the store has stays good, and no player comes back to the same failure for ever."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from server.engine.model_runner import ModelRunner
from server.wire.protocol import Ack, Act, Error, Frame, Queued, Rewind, Welcome
from tests.server.raw import hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, acted, resuming, session_of, settled
from tests.server.serving import serve
from tests.server.waiting import until
from world import RolloutState


def rows(store: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(store) as file:
        return file.execute("select key, generation, data, expires_at from sessions order by key").fetchall()


async def test_a_session_whose_state_cannot_be_restored_is_unknown_after_the_second_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(_runner: ModelRunner, _slot: int, _state: RolloutState) -> None:
        raise ArithmeticError("out of paint")

    with serve(replace(CONFIG, store=tmp_path / "s.db", hold_s=0.0), WORLDS) as server:
        async with raw_client(server.url, hello()) as client:
            seen, welcome = await client.play(3), client.welcome
        await settled(server, welcome.session, hold_s=0.0)
        monkeypatch.setattr(ModelRunner, "restore", restore)
        for _ in range(2):  # at the first failure the fault may be the device's
            async with raw_client(server.url, resuming(welcome, seen[-1].index)) as client:
                assert (await client.error()).code == "internal"
        async with raw_client(server.url) as client:
            await client.send(resuming(welcome, seen[-1].index))
            assert (await client.error()).code == "unknown_ticket"
        assert server.engine.is_ready


async def test_a_session_that_is_queued_when_the_model_fails_is_stored_as_it_was(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    with serve(replace(CONFIG, max_sessions=1, hold_s=0.0, store=store), WORLDS) as server:
        async with raw_client(server.url, hello()) as gone:
            seen, welcome = await gone.play(3), gone.welcome
        await settled(server, welcome.session, hold_s=0.0)
        async with raw_client(server.url) as other, raw_client(server.url) as back:
            await other.send(hello())
            assert isinstance(await other.receive(), Welcome)
            await back.send(resuming(welcome, seen[-1].index))
            assert isinstance(await back.receive(), Queued)
            before = [row for row in rows(store) if row[0] == welcome.session]
            server.engine._fail(ArithmeticError("the world is upside down"), "pixel")
            assert (await back.error()).code == "internal"
            await back.close_code()
            await until(lambda: server.engine.num_sessions[1] == 0, "it has left the queue")
        await asyncio.to_thread(server.stop)
    assert [row for row in rows(store) if row[0] == welcome.session] == before


async def test_a_rewind_that_waits_is_refused_if_its_frame_is_not_kept_when_its_session_is_resumed() -> None:
    with serve(replace(CONFIG, hold_s=0.0), WORLDS) as server:
        async with raw_client(server.url, hello(pacing="lockstep")) as client:
            welcome = client.welcome
            await client.send(Ack(frame=(await client.frame()).index))
            seen = await acted(client, range(1, 4))
            for seq in range(4, 9):  # three chunks may be unacked; two acts wait, and the rewind behind them
                await client.send(Act(seq=seq, buttons=("up",)))
            await client.send(Rewind(seq=7, run_frame=2))
            while session_of(server, welcome.session)._pending.start is None:
                await asyncio.sleep(0.01)
        await settled(server, welcome.session, hold_s=0.0)
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as client:
            frames: list[Frame] = []
            refusal = None
            while len(frames) < 5 or refusal is None:
                message = await client.receive()
                if isinstance(message, Error):
                    refusal = message
                elif isinstance(message, Frame):
                    frames.append(message)
                    await client.send(Ack(frame=message.index))
            assert (refusal.code, refusal.fatal, refusal.seq) == ("unknown_frame", False, 7)
            frames += await acted(client, range(9, 11))
            assert [(frame.run, frame.run_frame) for frame in frames] == [(0, number) for number in range(4, 11)]
