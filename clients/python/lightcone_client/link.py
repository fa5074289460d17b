"""A session's connection to a server, or to one after the other. Owns the sockets, the handshake and coming back: where
a connection is lost, the session is resumed with its ticket, here or at another server that shares its store. Knows no
frames and no controls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from lightcone_client.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    LightconeClientError,
    ProtocolError,
    RefusedError,
)
from lightcone_client.messages import Queued, Refusal, ServerMessage, Welcome, pack, unpack

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 2.0
FOR_GOOD = frozenset({1000, 1008, 1009})
"""Close codes after which nothing is to be resumed (RFC 6455, section 7.4.1)."""
FOR_NOW = frozenset({"not_ready", "shutting_down", "server_full", "too_many_connections", "handshake_timeout"})
"""Refusals that waiting may mend."""

OnQueued = Callable[[Queued], None]


class Link:
    """urls: of the server's stream, and of others that share its store. hello: its fields. resume_s: how long to try to
    come back; 0 for not at all. on_lost is called when the connection is gone, on_resumed once the session goes on."""

    def __init__(self, urls: Sequence[str], hello: dict[str, Any], *, timeout_s: float, resume_s: float) -> None:
        self.welcome: Welcome
        self.last_frame: int | None = None
        self.refusal: RefusedError | None = None  # of this connection, which then ends
        self.on_lost: Callable[[ConnectionLostError], None] = lambda _lost: None
        self.on_resumed: Callable[[Welcome], Awaitable[None]]
        self._urls = [stream_url(url) for url in urls]
        self._hello = hello
        self._timeout_s, self._resume_s = timeout_s, resume_s
        self._socket: websockets.asyncio.client.ClientConnection
        self._open = asyncio.Event()
        self._over: LightconeClientError | None = None

    async def open(self, ticket: str | None, on_queued: OnQueued | None) -> None:
        """Say hello, or come back to the session of a ticket, and wait for the welcome, through the queue if need be.
        Raises ConnectionFailedError or RefusedError."""
        resume = None if ticket is None else {"ticket": ticket, "last_frame": self.last_frame}
        socket = await self._connected()
        try:
            await _send(socket, pack("hello", **self._hello, resume=resume))
            while not isinstance(message := unpack(await _received(socket)), Welcome):
                if isinstance(message, Queued) and on_queued is not None:
                    on_queued(message)
                if isinstance(message, Refusal):
                    raise RefusedError(message.code, message.message, fatal=message.fatal, seq=message.seq)
        except BaseException:
            await socket.close()
            raise
        self._socket, self.welcome, self.refusal = socket, message, None

    def opened(self) -> None:
        """What waits to be sent may be sent."""
        self._open.set()

    async def receive(self) -> ServerMessage | None:
        """The next message; after coming back, if the connection is lost meanwhile. Raises ConnectionLostError, or a
        RefusedError that ended it."""
        while True:
            try:
                return unpack(await _received(self._socket))
            except ConnectionLostError as lost:
                if not self._may_come_back(lost):
                    raise self.refusal or lost from lost
                self._open.clear()
                self.on_lost(lost)
                await self._come_back(lost)

    async def send(self, data: bytes, *, again: bool = True) -> None:
        """A message; while the connection is gone, this waits. again: whether to send it again where it was lost on the
        way. Raises ConnectionLostError."""
        while True:
            await self._open.wait()
            if self._over is not None:
                raise self._over
            socket = self._socket
            try:
                await _send(socket, data)
            except ConnectionLostError as lost:
                if not self._may_come_back(lost):
                    raise self.refusal or lost from lost
                if socket is self._socket:
                    self._open.clear()
                if again:
                    continue
            return

    async def send_now(self, data: bytes) -> None:
        """A message that nobody misses if there is no connection. Raises ConnectionLostError once it is over."""
        if self._over is not None:
            raise self._over
        if self._open.is_set():
            await self.send(data, again=False)

    def end(self, error: LightconeClientError) -> None:
        """Nothing can be sent any more."""
        self._over = error
        self._open.set()

    async def close(self) -> None:
        await self._socket.close()

    def cut(self) -> None:
        """Lose the connection."""
        self._socket.transport.abort()

    def _may_come_back(self, lost: ConnectionLostError) -> bool:
        return (
            self._over is None and self._resume_s > 0 and self._ticket is not None and lost.close_code not in FOR_GOOD
        )

    @property
    def _ticket(self) -> str | None:
        return self.welcome.resume_ticket

    async def _come_back(self, lost: ConnectionLostError) -> None:
        """Raises it, or the refusal that came before it, where that does not work."""
        until, delay_s, why = time.monotonic() + self._resume_s, FIRST_DELAY_S, self.refusal or lost
        while True:
            try:
                await self.open(self._ticket, None)
            except RefusedError as refused:
                if refused.code not in FOR_NOW:
                    raise why from refused
                self._urls = [*self._urls[1:], self._urls[0]]  # another one may be ready
            except (ConnectionFailedError, ConnectionLostError):
                pass  # and again
            else:
                await self.on_resumed(self.welcome)
                self._open.set()
                return
            if time.monotonic() > until:
                raise why
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def send_first(self, data: bytes) -> None:
        """Before all that waits, while the session is being resumed."""
        await _send(self._socket, data)

    async def _connected(self) -> websockets.asyncio.client.ClientConnection:
        """To the first of the servers that answers."""
        problem: Exception | None = None
        for url in self._urls:
            try:
                return await websockets.asyncio.client.connect(
                    url, compression=None, max_size=MAX_MESSAGE_BYTES, open_timeout=self._timeout_s
                )
            except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as exc:
                problem = exc
        raise ConnectionFailedError(f"no Lightcone server answers at {', '.join(self._urls)}: {problem}") from problem


def stream_url(url: str) -> str:
    """The stream's address from a server's: `http://host:8000` becomes `ws://host:8000/v1/stream`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path if parts.path not in ("", "/") else "/v1/stream", "", ""))


async def _send(socket: websockets.asyncio.client.ClientConnection, data: bytes) -> None:
    try:
        await socket.send(data)
    except ConnectionClosed as exc:
        raise _lost(exc) from exc


async def _received(socket: websockets.asyncio.client.ClientConnection) -> bytes:
    try:
        data = await socket.recv()
    except ConnectionClosed as exc:
        raise _lost(exc) from exc
    if isinstance(data, str):
        raise ProtocolError("the server sent a text message")
    return data


def _lost(exc: ConnectionClosed) -> ConnectionLostError:
    return ConnectionLostError(exc.rcvd.code if exc.rcvd else None, exc.rcvd.reason if exc.rcvd else str(exc))
