"""Clients that try to cost a server as much as they can, for `lightcone bench serve --attacks`.

Owns what each kind sends. *pinging* sends WebSocket pings, *fragmenting* empty continuation frames, both before
`hello`; *scraping* requests `/metrics` over eight connections that stay open; *connecting* opens one connection after
the other; *sipping* plays at full speed and reads next to nothing; *loading* starts from a saved file again and again;
*forking* forks, saves and rewinds; *picturing* starts from a picture that is large when it is decoded. Whoever is cut
off or refused tries again at once. Every attack ends at its time, and goes to loopback addresses only.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import msgpack
import numpy as np
from lightcone_client.addresses import stream_url
from lightcone_client.messages import PROTOCOL_VERSION, pack
from PIL import Image
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as socket_to
from websockets.exceptions import WebSocketException

BATCH = 1000
"""Frames in one write."""

RETRY_S = 0.02
PING, FRAGMENT = bytes([0x89, 0x80, 0, 0, 0, 0]), bytes([0x00, 0x80, 0, 0, 0, 0])
FIRST_FRAGMENT = bytes([0x02, 0x80, 0, 0, 0, 0])
GONE = (OSError, WebSocketException, TimeoutError, asyncio.IncompleteReadError)
"""How a connection ends that the server refuses or cuts off."""


@dataclass(slots=True)
class Target:
    """A server on a loopback address, until when it is attacked (seconds since the epoch), and from which address.
    num_attempts: how often an attack has begun."""

    url: str
    world: str
    end: float
    address: str
    num_attempts: int = 0

    def __post_init__(self) -> None:
        if not ip_address(self.host).is_loopback:
            raise ValueError(f"{self.url} is not a loopback address; attacks are for a server of this machine")

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 80)

    @property
    def is_over(self) -> bool:
        return time.time() >= self.end

    @property
    def source(self) -> tuple[str, int] | None:
        """Return the local address; systems other than Linux have one loopback address only."""
        return (self.address, 0) if sys.platform == "linux" else None


Attack = Callable[[Target], Awaitable[None]]


def address_for(kind: str) -> str:
    """Return a loopback address that no other kind uses."""
    return f"127.0.0.{10 + list(ATTACKS).index(kind)}"


def repeated(attack: Attack) -> Attack:
    """Return the attack that begins again whenever it was cut off, until its time is over."""

    async def again(target: Target) -> None:
        while not target.is_over:
            target.num_attempts += 1
            with contextlib.suppress(*GONE):
                async with asyncio.timeout(max(target.end - time.time(), 0.0)):
                    await attack(target)
            await asyncio.sleep(RETRY_S)

    return again


async def _connected(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(target.host, target.port, local_addr=target.source)


async def _flood(target: Target, data: bytes, opening: bytes = b"") -> None:
    """Open a stream, say no hello, and send `data` without end; read the answers away."""
    reader, writer = await _connected(target)
    try:
        writer.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {target.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.write(opening)
        draining = asyncio.create_task(_read_away(reader))
        try:
            while not target.is_over and not draining.done():
                writer.write(data)
                await writer.drain()
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
    finally:
        writer.transport.abort()


async def _read_away(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass


async def ping(target: Target) -> None:
    await _flood(target, PING * BATCH)


async def fragment(target: Target) -> None:
    await _flood(target, FRAGMENT * BATCH, FIRST_FRAGMENT)


async def scrape(target: Target) -> None:
    async def one() -> None:
        reader, writer = await _connected(target)
        try:
            while not target.is_over:
                writer.write(f"GET /metrics HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if b"connection: close" in head.lower():
                    break
        finally:
            writer.transport.abort()

    await asyncio.gather(*(repeated(lambda _target: one())(target) for _ in range(8)))


async def connect_again(target: Target) -> None:
    """Open connections, eight at a time, and reset each one."""

    async def one() -> None:
        _, writer = await _connected(target)
        writer.transport.abort()

    while not target.is_over:
        await asyncio.gather(*(one() for _ in range(8)), return_exceptions=True)


@asynccontextmanager
async def _playing(target: Target, start: dict[str, Any], **options: Any) -> AsyncIterator[ClientConnection]:
    options = {"local_addr": target.source, "max_size": None, **options}
    async with socket_to(stream_url(target.url), compression=None, proxy=None, **options) as stream:
        hello = {"version": PROTOCOL_VERSION, "world": target.world, "encodings": ["jpeg"], "start": start}
        await stream.send(pack("hello", **hello))
        yield stream


async def sip(target: Target) -> None:
    """Acknowledge everything and read next to nothing, into a small buffer."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connected.setblocking(False)
    if target.source is not None:
        connected.bind(target.source)
    await asyncio.get_running_loop().sock_connect(connected, (target.host, target.port))
    async with _playing(target, {}, sock=connected, local_addr=None, max_queue=1) as stream:
        await stream.send(pack("control", command="speed", speed=None))
        while not target.is_over:
            await stream.send(pack("ack", frame=2**53 - 1))
            await asyncio.wait_for(stream.recv(), 10.0)
            await asyncio.sleep(0.1)


async def _until(stream: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of a kind; acknowledge frames."""
    while True:
        message: dict[str, Any] = msgpack.unpackb(await stream.recv())
        if message["type"] == "frame":
            await stream.send(pack("ack", frame=message["index"]))
        if message["type"] == kind:
            return message


async def load(target: Target) -> None:
    """Save once, then start from the file whenever the last start is answered or refused."""
    async with _playing(target, {}) as stream:
        for _ in range(90):
            await _until(stream, "frame")
        await stream.send(pack("control", command="save"))
        file = (await _until(stream, "saved"))["file"]
        while not target.is_over:
            await stream.send(pack("control", command="start", start={"state": file}))
            await _until(stream, "frame")


async def fork(target: Target) -> None:
    """Fork, save and rewind in turn, with every frame."""
    async with _playing(target, {}) as stream:
        while not target.is_over:
            frame = await _until(stream, "frame")
            for control in ({"command": "fork"}, {"command": "save"}):
                await stream.send(pack("control", **control))
            if frame["run_frame"] > 32:
                await stream.send(pack("control", command="rewind", run_frame=frame["run_frame"] - 1))


async def start_from_a_picture(target: Target) -> None:
    """Start from a noisy picture of four megapixels, whenever the last start is answered or refused."""
    noise = np.random.default_rng(0).integers(0, 2, (2048, 2048), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise * 255).convert("1").save(out, "PNG")
    async with _playing(target, {}) as stream:
        while not target.is_over:
            await stream.send(pack("control", command="start", seq=0, start={"image": out.getvalue()}))
            await _until(stream, "frame")


ATTACKS: dict[str, Attack] = {
    "pinging": repeated(ping),
    "fragmenting": repeated(fragment),
    "scraping": repeated(scrape),
    "connecting": repeated(connect_again),
    "sipping": repeated(sip),
    "loading": repeated(load),
    "forking": repeated(fork),
    "picturing": repeated(start_from_a_picture),
}
