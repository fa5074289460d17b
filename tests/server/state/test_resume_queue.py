"""Resuming when slots are scarce: who waits for whom, and what happens to those who wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from server.http.app import SocketTransport
from server.wire.protocol import Bye, Pause, Queued, Welcome, encode
from server.wire.transport import DisconnectedError
from tests.server.raw import hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, resuming
from tests.server.serving import serve
from tests.server.waiting import until


async def test_a_queued_player_gets_the_slot_of_a_lost_one_who_then_waits_to_resume(tmp_path: Path) -> None:
    config = replace(CONFIG, max_sessions=1, hold_s=0.1, store=tmp_path / "s.db")
    with serve(config, WORLDS) as server:
        async with raw_client(server.url, hello()) as gone:
            seen, welcome = await gone.play(3), gone.welcome
            async with raw_client(server.url) as waiting:
                await waiting.send(hello())
                assert isinstance(await waiting.receive(), Queued)
                gone.socket.transport.abort()
                assert isinstance(await waiting.receive(), Welcome)
                await waiting.play(2)
                async with raw_client(server.url) as back:
                    await back.send(resuming(welcome, seen[-1].index))
                    assert isinstance(await back.receive(), Queued)
                    back.socket.transport.abort()
                    await until(lambda: server.engine.num_sessions == (1, 0), "it has left the queue")
                async with raw_client(server.url) as back:  # its connection is lost again in the queue
                    await back.send(resuming(welcome, seen[-1].index))
                    assert isinstance(await back.receive(), Queued)
                    await waiting.send(Bye())
                    while not isinstance(message := await back.receive(), Welcome):
                        assert isinstance(message, Queued)
                    assert (await back.play(3))[-1].index > seen[-1].index


async def test_a_session_that_finds_the_queue_full_can_be_resumed_later() -> None:
    config = replace(CONFIG, max_sessions=1, queue_limit=1, hold_s=0.0)
    with serve(config, WORLDS) as server:
        async with raw_client(server.url, hello()) as gone:
            seen, welcome = await gone.play(3), gone.welcome
        async with raw_client(server.url) as playing, raw_client(server.url) as waiting:
            await playing.send(hello())
            while not isinstance(await playing.receive(), Welcome):
                pass
            await waiting.send(hello())
            assert isinstance(await waiting.receive(), Queued)
            for _ in range(3):
                async with raw_client(server.url) as back:
                    await back.send(resuming(welcome, seen[-1].index))
                    assert (await back.error()).code == "server_full"
            await waiting.send(Bye())
            await waiting.close_code()
            async with raw_client(server.url) as back:
                await back.send(resuming(welcome, seen[-1].index))
                assert isinstance(await back.receive(), Queued)
                await playing.send(Bye())
                frames = await back.play(3)
                assert frames[0].index == seen[-1].index + 1
                assert frames[0].run == 0


async def test_a_session_queued_for_its_slot_outlives_its_server(tmp_path: Path) -> None:
    config = replace(CONFIG, max_sessions=1, hold_s=0.0, store=tmp_path / "s.db")
    with serve(config, WORLDS) as server:
        async with raw_client(server.url, hello()) as gone:
            seen, welcome = await gone.play(3), gone.welcome
        async with raw_client(server.url) as other, raw_client(server.url) as back:
            await other.send(hello())
            while not isinstance(await other.receive(), Welcome):
                pass
            await back.send(resuming(welcome, seen[-1].index))
            assert isinstance(await back.receive(), Queued)
            await asyncio.to_thread(server.stop)
            assert (await back.error()).code == "shutting_down"
    with serve(config, WORLDS) as server:
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as back:
            assert back.welcome.generation == 2
            assert (await back.play(3))[-1].run == 0, "no frame is lost"


async def test_an_idle_player_makes_room_and_can_resume() -> None:
    with serve(replace(CONFIG, idle_timeout_s=0.3, max_sessions=1), WORLDS) as server:
        async with raw_client(server.url, hello()) as idle:
            seen = await idle.play(2)
            await idle.send(Pause())
            async with raw_client(server.url) as waiting:
                await waiting.send(hello())
                assert isinstance(await waiting.receive(), Queued)
                await asyncio.sleep(0.4)  # longer than idle_timeout_s: nothing may happen
                assert waiting.socket.close_code is None, "queued players may be silent"
                error = await idle.error()
                assert (error.code, await idle.close_code()) == ("idle", 1000)
        async with raw_client(server.url, resuming(idle.welcome, seen[-1].index)) as back:
            assert back.welcome.generation == 1


async def test_without_resuming_no_ticket_is_given() -> None:
    with serve(replace(CONFIG, resume_s=0.0), WORLDS) as server:
        async with raw_client(server.url, hello()) as client:
            assert client.welcome.resume_ticket is None


async def test_a_player_who_leaves_and_keeps_the_session_frees_the_slot_at_once() -> None:
    with serve(replace(CONFIG, max_sessions=1, hold_s=3600.0, reload_s=0.1), WORLDS) as server:
        async with raw_client(server.url, hello()) as gone, raw_client(server.url) as waiting:
            await waiting.send(hello())
            assert isinstance(await waiting.receive(), Queued)
            seen, welcome = await gone.play(3), gone.welcome
            await gone.send(Bye(keep=True))
            assert await gone.close_code() == 1000
            assert isinstance(await waiting.receive(), Welcome), "nobody waits for the hold of an hour"
            await waiting.send(Bye())
            await waiting.close_code()
        async with raw_client(server.url) as back:
            await back.send(resuming(welcome, seen[-1].index))
            while not isinstance(message := await back.receive(), Welcome):
                pass
            assert (message.session, message.generation) == (welcome.session, 1)
            assert (await back.play(3))[-1].run_frame > seen[-1].run_frame


@pytest.mark.parametrize("keep", [False, True])
async def test_a_bye_counts_although_writing_notices_the_end_first(monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    bye, is_closed = encode(Bye(keep=keep)), asyncio.Event()
    receive, send = SocketTransport.receive, SocketTransport.send

    async def receive_late(self: SocketTransport) -> bytes:
        data = await receive(self)
        if data == bye and not is_closed.is_set():
            is_closed.set()
            await asyncio.sleep(0.3)  # frames meet a closed connection meanwhile
        return data

    async def send_until_closed(self: SocketTransport, data: bytes) -> None:
        if is_closed.is_set():
            raise DisconnectedError
        await send(self, data)

    monkeypatch.setattr(SocketTransport, "receive", receive_late)
    monkeypatch.setattr(SocketTransport, "send", send_until_closed)
    config = replace(CONFIG, max_sessions=1, hold_s=3600.0, reload_s=0.1, address_share=1.0)
    with serve(config, WORLDS) as server:
        async with raw_client(server.url, hello()) as gone:
            await gone.play(3)
            await gone.socket.send(bye)
            await until(lambda: server.engine.num_sessions == (0, 0), "its slot is free")
