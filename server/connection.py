"""One client's conversation, from `hello` to the end, over any transport of binary messages.

Owns the order of things: handshake, then reading and writing side by side, then leaving. Knows no sockets (`app` has
the one implementation of `Transport`) and no models (the engine has them).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.config import ServerConfig
from server.engine import Engine
from server.errors import (
    BadMessageError,
    BadVersionError,
    CloseCode,
    HandshakeTimeoutError,
    InternalError,
    MessageTooLargeError,
    ServerError,
    TooManyPendingError,
    UnsupportedError,
)
from server.frames import read_picture
from server.log import session_key
from server.outbox import Outbox
from server.protocol import (
    PROTOCOL_VERSION,
    Bye,
    ClientMessage,
    Error,
    Hello,
    Start,
    StartFrom,
    WorldInfo,
    decode_client,
    encode,
)
from server.session import StartRequest

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.0


class DisconnectedError(Exception):
    """The client has gone."""


class Transport(Protocol):
    """Binary messages both ways. `receive` and `send` raise DisconnectedError when the client has gone."""

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


async def converse(transport: Transport, engine: Engine, config: ServerConfig) -> None:
    """Serve one client until it leaves, is refused or vanishes. Never raises for what a client does."""
    key = secrets.token_urlsafe(9)
    session_key.set(key)
    try:
        try:
            await Conversation(key, transport, engine, config).run()
        finally:
            engine.leave(key)  # before any goodbye, which a deaf client could draw out
        await transport.close(CloseCode.NORMAL, "bye")
        logger.info("left")
    except DisconnectedError:
        logger.info("the connection is gone")
    except ServerError as error:
        logger.info("refused: %s: %s", error.code, error)
        await refuse(transport, error)
    except Exception:  # a fault of the server's own; the client must hear of it, without the details
        logger.exception("a conversation failed")
        await refuse(transport, InternalError("the server failed; its log says why"))


async def refuse(transport: Transport, error: ServerError) -> None:
    """Send the error and close, without waiting long for a client that does not read."""
    message = Error(code=error.code, message=str(error), fatal=True)
    with contextlib.suppress(DisconnectedError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await transport.send(encode(message))
            await transport.close(error.close_code, error.code)


class Conversation:
    """The state of one connection on the event loop."""

    def __init__(self, key: str, transport: Transport, engine: Engine, config: ServerConfig) -> None:
        self._key = key
        self._transport = transport
        self._engine = engine
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._outbox = Outbox(self._wake)

    async def run(self) -> None:
        """Handshake, then read and write until either ends. Returns after `bye`; raises otherwise."""
        world = await self._handshake()
        tasks = {asyncio.create_task(self._read(world)), asyncio.create_task(self._write())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    def _wake(self) -> None:
        """Called from the engine's threads."""
        self._loop.call_soon_threadsafe(self._news.set)

    async def _handshake(self) -> WorldInfo:
        """Take the hello and join the world; the welcome (or a place in the queue) is then in the outbox."""
        try:
            async with asyncio.timeout(self._config.handshake_timeout_s):
                data = await self._transport.receive()
        except TimeoutError as exc:
            raise HandshakeTimeoutError(f"no hello within {self._config.handshake_timeout_s:g} s") from exc
        hello = self._decode(data)
        if not isinstance(hello, Hello):
            raise BadMessageError(f"{hello.type}: the first message must be hello")
        if hello.version != PROTOCOL_VERSION:
            raise BadVersionError(f"protocol version {hello.version}: this server speaks {PROTOCOL_VERSION}")
        if hello.resume is not None:
            raise UnsupportedError("resume: this server cannot do it yet; say hello without it")
        world = self._engine.info(hello.world)
        start = await self._start_request(hello.start, None, world)
        self._engine.join(self._key, hello, start, self._outbox)
        return world

    async def _read(self, world: WorldInfo) -> None:
        """Act on messages until `bye`. What is refused but not fatal is answered and forgotten."""
        while True:
            message = self._decode(await self._transport.receive())
            if isinstance(message, Bye):
                return
            await self._handle(message, world)
            if self._outbox.overflowed:
                raise TooManyPendingError("replies pile up unread; read what the server sends")

    def _decode(self, data: bytes) -> ClientMessage:
        """Only messages that can carry a picture may be larger than the message limit."""
        limit = self._config.max_message_bytes
        try:
            message = decode_client(data)
        except BadMessageError:
            if len(data) <= limit:
                raise
            message = None
        if message is None or (len(data) > limit and not isinstance(message, Hello | Start)):
            raise MessageTooLargeError(f"{len(data)} bytes; only starts from a picture may have over {limit}")
        return message

    async def _handle(self, message: ClientMessage, world: WorldInfo) -> None:
        try:
            match message:
                case Hello() | Bye():
                    raise BadMessageError(f"{message.type}: already said")
                case Start():
                    request = await self._start_request(message.start, message.seq, world)
                    self._engine.want_start(self._key, request)
                case _:
                    self._engine.receive(self._key, message)
        except ServerError as error:
            if error.fatal:
                raise
            logger.info("refused: %s: %s", error.code, error)
            seq = getattr(message, "seq", None)  # acts and controls have one
            self._outbox.put(Error(code=error.code, message=str(error), fatal=False, seq=seq))

    async def _start_request(self, start: StartFrom, seq: int | None, world: WorldInfo) -> StartRequest:
        """What the engine needs of a `StartFrom`; pictures are read on another thread."""
        if start.image is not None and start.index is not None:
            raise BadMessageError("start: give an index or an image, not both")
        seed = secrets.randbelow(2**31) if start.seed is None else start.seed
        picture = None if start.image is None else await asyncio.to_thread(self._read_picture, start.image, world)
        return StartRequest(index=start.index or 0, picture=picture, seed=seed, control_seq=seq)

    def _read_picture(self, image: bytes, world: WorldInfo) -> NDArray[np.uint8]:
        limits = self._config
        return read_picture(
            image, world.height, world.width, max_bytes=limits.max_image_bytes, max_pixels=limits.max_image_pixels
        )

    async def _write(self) -> None:
        """Send what the outbox holds, control messages first, until the engine ends the session."""
        while True:
            self._news.clear()
            while (data := self._outbox.take()) is not None:
                await self._transport.send(data)
            if self._outbox.ending is not None:
                raise self._outbox.ending
            await self._news.wait()
