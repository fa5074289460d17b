"""Clients that do not read, or only a little, cost bounded memory and are disconnected."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from server.config import ServerConfig
from server.wire.protocol import Ack, Act, SetSpeed
from tests.server.raw import Raw, hello, raw_client
from tests.server.serving import RunningServer, serve
from tests.server.waiting import wait_for_sessions
from world.testing import tiny_world


@pytest.fixture(scope="module")
def tight() -> Iterator[RunningServer]:
    """A server with small kernel buffers, so that a client that does not read shows soon. Its send timeout is long, so
    that on a slow machine it does not end the connection before a test has seen what it waits for."""
    config = ServerConfig(
        max_sessions=4,
        address_share=1.0,
        num_threads=1,
        max_messages_per_s=1e6,
        address_budget=1e6,
        resume_s=0.0,
        send_timeout_s=60.0,
    )
    with serve(config, {"pixel": tiny_world}, send_buffer_bytes=4096) as running:
        yield running


def small_socket(server: RunningServer) -> socket.socket:
    """Return a connected socket with a small receive buffer."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connected.connect(("127.0.0.1", server.port))
    connected.setblocking(False)
    return connected


async def test_a_client_that_stays_but_reads_nothing_is_disconnected() -> None:
    config = ServerConfig(max_sessions=4, address_share=1.0, num_threads=1, send_timeout_s=0.5, resume_s=0.0)
    with serve(config, {"pixel": tiny_world}, send_buffer_bytes=4096) as server:
        unread = raw_client(server.url, hello(), sock=small_socket(server), max_queue=1, close_timeout=0.1)
        async with unread as client:
            await client.send(SetSpeed(speed=None))
            async with asyncio.timeout(20):
                while server.engine.num_sessions[0]:
                    with contextlib.suppress(ConnectionClosed):
                        await client.send(Ack(frame=2**53 - 1))
                    await asyncio.sleep(0.002)
            client.socket.transport.abort()


@pytest.mark.parametrize("pacing", ["realtime", "lockstep"])
async def test_a_client_that_acks_but_does_not_read_costs_three_chunks_of_memory(
    tight: RunningServer, pacing: str
) -> None:
    unread = raw_client(tight.url, hello(pacing=pacing), sock=small_socket(tight), max_queue=1, close_timeout=0.5)
    async with raw_client(tight.url, hello()) as other, unread as client:
        await client.send(SetSpeed(speed=None))
        waiting: list[int] = []
        async with asyncio.timeout(60):
            while len(waiting) < 100 or not all(waiting[-50:]):  # until frames keep waiting
                await client.send(Act(seq=len(waiting)))
                await client.send(Ack(frame=2**53 - 1))
                await asyncio.sleep(0.01)
                waiting.append(tight.engine.backlogs()[client.welcome.session][0])
        assert max(waiting) < 3 * 5_000  # a noise picture of this size has about 3 KB as PNG
        assert len(await other.play(5)) == 5
        client.socket.transport.abort()
    await wait_for_sessions(tight, 0)


async def send_for_ever(client: Raw) -> None:
    for seq in itertools.count():
        await client.send(Act(seq=seq))
        await asyncio.sleep(0.0005)


async def test_a_client_that_causes_replies_and_reads_none_is_disconnected(tight: RunningServer) -> None:
    unread = raw_client(tight.url, hello(receipts=True), sock=small_socket(tight), max_queue=1, close_timeout=0.5)
    async with raw_client(tight.url, hello()) as other, unread as client:
        flood = asyncio.create_task(send_for_ever(client))
        await wait_for_sessions(tight, 1, within_s=60)
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
        assert len(await other.play(5)) == 5
        client.socket.transport.abort()
