"""A session's connection to a server. Owns the socket, the handshake and reconnecting: a session whose connection is
lost is resumed with its ticket, on the same server or on another one that shares its store. Knows no frames and no
controls.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from lightcone_client.addresses import is_loopback, proxies, stream_url
from lightcone_client.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    LightconeClientError,
    ProtocolError,
    RefusedError,
    UsageError,
)
from lightcone_client.messages import Queued, Refusal, ServerMessage, Welcome, pack, unpack

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 2.0
FINAL_CLOSE_CODES = frozenset({1000, 1008, 1009})
"""Close codes after which the session cannot be resumed (RFC 6455, section 7.4.1)."""
TEMPORARY_REFUSALS = frozenset(
    {"not_ready", "shutting_down", "server_full", "too_many_connections", "handshake_timeout"}
)
"""Error codes after which another attempt may succeed."""

OnQueued = Callable[[Queued], None]


class Connection:
    """A connection that reopens itself.

    urls: the server, then others that share its store. hello: the fields of the hello message. resume_s: how long to
    try to reconnect; 0 disables it. `on_lost` is called when the connection is lost, `on_resumed` after the handshake
    of a resumed session.
    """

    def __init__(self, urls: Sequence[str], hello: dict[str, Any], *, timeout_s: float, resume_s: float) -> None:
        self.welcome: Welcome
        self.last_frame: int | None = None
        self.refusal: RefusedError | None = None  # the fatal error that is about to end the current connection
        self.on_lost: Callable[[ConnectionLostError], None] = lambda _lost: None
        self.on_resumed: Callable[[Welcome], Awaitable[None]]
        self._urls = [_checked_url(url) for url in urls]
        self._hello = hello
        self._timeout_s, self._resume_s = timeout_s, resume_s
        self._socket: websockets.asyncio.client.ClientConnection
        self._writable = asyncio.Event()
        self._ended: LightconeClientError | None = None
        self._owner: tuple[int, asyncio.AbstractEventLoop]

    async def open(self, ticket: str | None, on_queued: OnQueued | None) -> None:
        """Connect and perform the handshake, waiting in the admission queue if necessary; `ticket` resumes a session.

        Raises ConnectionFailedError or RefusedError.
        """
        resume = None if ticket is None else {"ticket": ticket, "last_frame": self.last_frame}
        socket = await self._open_socket()
        try:
            await _send(socket, pack("hello", **self._hello, resume=resume))
            while not isinstance(message := unpack(await _receive(socket)), Welcome):
                if isinstance(message, Queued) and on_queued is not None:
                    on_queued(message)
                if isinstance(message, Refusal):
                    raise refused_error(message)
        except BaseException:
            await socket.close()
            raise
        self._socket, self.welcome, self.refusal = socket, message, None
        self._owner = os.getpid(), asyncio.get_running_loop()

    @property
    def is_inherited(self) -> bool:
        """Return whether this process was forked from the one that opened the connection."""
        return os.getpid() != self._owner[0]

    def check_owner(self) -> None:
        """Raise UsageError unless this process and event loop opened the connection: no other one is told of what
        arrives, so it would wait for ever."""
        if self.is_inherited:
            raise UsageError(f"this session belongs to process {self._owner[0]}: open one after the fork")
        if asyncio.get_running_loop() is not self._owner[1]:
            raise UsageError("this session belongs to another event loop: open one in each, or use play from threads")

    def allow_sending(self) -> None:
        """Release the calls of `send` that wait for an open connection."""
        self._writable.set()

    async def receive(self) -> ServerMessage | None:
        """Return the next message, reconnecting if the connection is lost meanwhile.

        Raises ConnectionLostError, or the RefusedError with which the server ended the connection.
        """
        while True:
            try:
                return unpack(await _receive(self._socket))
            except ConnectionLostError as lost:
                if not self._can_resume(lost):
                    raise self.refusal or lost from lost
                self._writable.clear()
                self.on_lost(lost)
                await self._reconnect(lost)

    async def send(self, data: bytes, *, retry: bool = True) -> None:
        """Send a message, waiting while the connection is down. retry: send it again if the connection is lost while
        sending. Raises ConnectionLostError."""
        self.check_owner()
        while True:
            await self._writable.wait()
            if self._ended is not None:
                raise self._ended
            socket = self._socket
            try:
                await _send(socket, data)
            except ConnectionLostError as lost:
                if not self._can_resume(lost):
                    raise self.refusal or lost from lost
                if socket is self._socket:
                    self._writable.clear()
                if retry:
                    continue
            return

    async def send_if_open(self, data: bytes) -> None:
        """Send a message, or drop it while the connection is down. Raises ConnectionLostError after `end`."""
        self.check_owner()
        if self._ended is not None:
            raise self._ended
        if self._writable.is_set():
            await self.send(data, retry=False)

    async def send_while_resuming(self, data: bytes) -> None:
        """Send a message before the calls of `send` that wait are released; only for `on_resumed`."""
        await _send(self._socket, data)

    def end(self, error: LightconeClientError) -> None:
        """Make every later or waiting call of `send` raise `error`."""
        self._ended = error
        self._writable.set()

    async def close(self) -> None:
        """Close the socket with a closing handshake."""
        await self._socket.close()

    def abort(self) -> None:
        """Drop the socket without a closing handshake."""
        self._socket.transport.abort()

    def _can_resume(self, lost: ConnectionLostError) -> bool:
        ticket = self.welcome.resume_ticket
        allowed = self._ended is None and self._resume_s > 0 and ticket is not None
        return allowed and lost.close_code not in FINAL_CLOSE_CODES

    async def _reconnect(self, lost: ConnectionLostError) -> None:
        """Reopen the connection and resume the session.

        When that fails, raise `lost`, or the fatal error that the server had sent before it.
        """
        deadline, delay_s, reason = time.monotonic() + self._resume_s, FIRST_DELAY_S, self.refusal or lost
        while True:
            try:
                await self.open(self.welcome.resume_ticket, None)
            except RefusedError as refused:
                if refused.code not in TEMPORARY_REFUSALS:
                    raise reason from refused
                self._urls = [*self._urls[1:], self._urls[0]]  # another server may be ready
            except (ConnectionFailedError, ConnectionLostError):
                pass  # try again below
            else:
                await self.on_resumed(self.welcome)
                self._writable.set()
                return
            if time.monotonic() > deadline:
                raise reason
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _open_socket(self) -> websockets.asyncio.client.ClientConnection:
        """Connect to the first server that answers."""
        problem: Exception | None = None
        for url in self._urls:
            try:
                return await websockets.asyncio.client.connect(
                    url,
                    compression=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=self._timeout_s,
                    proxy=None if is_loopback(url) else True,
                )
            # Besides network errors: names that cannot be encoded, and a SOCKS proxy without the package for it.
            except (OSError, TimeoutError, WebSocketException, ValueError, ImportError) as exc:
                problem = exc
        raise ConnectionFailedError(_failure(self._urls, problem)) from problem


def _checked_url(url: str) -> str:
    try:
        return stream_url(url)
    except ValueError as exc:
        raise ConnectionFailedError(f"{url!r} is not the address of a server: {exc}") from exc


def _failure(urls: Sequence[str], problem: Exception | None) -> str:
    """Say why no server could be reached, and through which proxies it was tried."""
    message = f"no Lightcone server answers at {', '.join(urls)}: {problem or type(problem).__name__}"
    if isinstance(problem, InvalidStatus):
        message += "; give the address of the server's page, with the path that its proxy serves it under"
    if not all(map(is_loopback, urls)) and (names := proxies()):
        message += f" (the settings of this machine name the proxy {names}; see NO_PROXY)"
    return message


def refused_error(refusal: Refusal) -> RefusedError:
    """Return the exception for an `error` message."""
    return RefusedError(refusal.code, refusal.message, fatal=refusal.fatal, seq=refusal.seq)


async def _send(socket: websockets.asyncio.client.ClientConnection, data: bytes) -> None:
    try:
        await socket.send(data)
    except ConnectionClosed as exc:
        raise _connection_lost(exc) from exc


async def _receive(socket: websockets.asyncio.client.ClientConnection) -> bytes:
    try:
        data = await socket.recv()
    except ConnectionClosed as exc:
        raise _connection_lost(exc) from exc
    if isinstance(data, str):
        raise ProtocolError("the server sent a text message")
    return data


def _connection_lost(exc: ConnectionClosed) -> ConnectionLostError:
    return ConnectionLostError(exc.rcvd.code if exc.rcvd else None, exc.rcvd.reason if exc.rcvd else str(exc))
