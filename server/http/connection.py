"""One client's conversation, from `hello` to the end, over any transport of binary messages.

Owns the order of things: handshake, then reading and writing side by side, then leaving. Knows no sockets (see
`transport`) and no models (the engine has them).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial

from server.config import ServerConfig
from server.engine.engine import Engine
from server.errors import (
    BadMessageError,
    BadVersionError,
    CloseCode,
    ErrorCode,
    HandshakeTimeoutError,
    IdleError,
    InternalError,
    MessageTooLargeError,
    RateLimitedError,
    ServerError,
    TooManyPendingError,
    UnknownTicketError,
)
from server.http.start_requests import check_start, has_to_be_read, in_worker_thread, start_request
from server.http.token_bucket import TokenBucket
from server.sessions.run import RunRequest
from server.state.suspended_sessions import Ticket
from server.telemetry.log import session_key
from server.wire.protocol import (
    PROTOCOL_VERSION,
    Act,
    Bye,
    ClientMessage,
    GetLog,
    Hello,
    Resume,
    Start,
    StartFrom,
    WorldInfo,
    decode_client,
    encode,
    refusal_of,
)
from server.wire.send_queue import SendQueue
from server.wire.transport import CLOSE_TIMEOUT_S, DisconnectedError, Transport, refuse

logger = logging.getLogger(__name__)

MESSAGES_PER_TURN = 32  # of one client, before every other connection has had its turn

MESSAGES_PER_FRAME = 2.0  # an act and an ack: who answers frames may be as fast as they come

LOGS_PER_S, LOGS_AT_ONCE = 2.0, 4.0

FAULTS = (CloseCode.POLICY, CloseCode.TOO_BIG)  # after these nobody is waited for


async def converse(
    transport: Transport, engine: Engine, config: ServerConfig, show: Callable[[str | None], None]
) -> ServerError | None:
    """Serve one client until it leaves, is refused or vanishes; returns the error that ended it, if one did. Never
    raises for what a client does. show: is given the hello's token, raises a ServerError where it is not enough."""
    talk = Conversation(transport, engine, config, show)
    try:
        for_good = False
        try:
            await talk.run()
            for_good = True
        except ServerError as error:
            for_good = error.close_code in FAULTS
            raise
        finally:
            talk.leave(for_good=for_good)  # before any goodbye, which a deaf client could draw out
        logger.info("left")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await transport.close(CloseCode.NORMAL, "bye")
    except DisconnectedError as gone:
        logger.info("the connection is gone%s", f": {gone}" if gone.args else "")
    except ServerError as error:
        logger.info("refused: %s: %s", error.code, error)
        await refuse(transport, error)
        return error
    except Exception:  # a fault of the server's own; the client must hear of it, without the details
        logger.exception("a conversation failed")
        await refuse(transport, InternalError("the server failed; its log says why"))
    return None


class Conversation:
    """The state of one connection on the event loop."""

    def __init__(
        self,
        transport: Transport,
        engine: Engine,
        config: ServerConfig,
        show: Callable[[str | None], None],
    ) -> None:
        self._show = show
        self._key = secrets.token_urlsafe(9)
        session_key.set(self._key)
        self._transport = transport
        self._engine = engine
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._wakeup = asyncio.Event()
        self._send_queue = SendQueue(
            partial(self._signal, self._wakeup), engine.metrics.count_frames
        )  # from any thread
        self._admitted = asyncio.Event()
        self._opened = asyncio.Event()  # admitted, and the first start has been asked for
        self._allowance = TokenBucket(config.max_messages_per_s, config.max_messages_per_s, time.monotonic())
        self._newest_sent = -1
        self._logs = TokenBucket(LOGS_PER_S, LOGS_AT_ONCE, time.monotonic())
        self._logged: set[ErrorCode] = set()

    async def run(self) -> None:
        """Handshake, then read and write until either ends. Returns after `bye`; raises otherwise."""
        hello = await self._handshake()
        world = await self._resume(hello, hello.resume) if hello.resume else await self._join(hello)
        start = StartFrom() if hello.resume else hello.start
        opening, reading, writing = (
            asyncio.create_task(work) for work in (self._open(start, world), self._read(world), self._write())
        )
        running = {opening, reading, writing}
        try:
            while {reading, writing} <= running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (opening, reading, writing):
                task.cancel()
            await asyncio.gather(opening, reading, writing, return_exceptions=True)

    def leave(self, *, for_good: bool) -> None:
        """The engine is told; nothing happens where the session goes on over another connection."""
        (self._engine.leave if for_good else self._engine.lose)(self._key, self._send_queue)

    def _signal(self, event: asyncio.Event) -> None:
        """Set an event from any thread."""
        self._loop.call_soon_threadsafe(event.set)

    async def _handshake(self) -> Hello:
        """Take the hello."""
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
        self._show(hello.token)
        return hello

    async def _resume(self, hello: Hello, resume: Resume) -> WorldInfo:
        """Go on with a session of before; who has it meanwhile, here or at another server of this store, loses it."""
        ticket, claimed = Ticket.of(resume.ticket), None
        self._engine.info(hello.world)  # nothing is claimed by a server that cannot go on with it
        if self._engine.store is not None:
            with contextlib.suppress(UnknownTicketError):  # it may be too young for the store
                claimed = await asyncio.wrap_future(self._engine.store.claim(ticket.key, ticket.secret))
        admitted = partial(self._signal, self._admitted)
        world = self._engine.resume(ticket, hello, resume.last_frame, claimed, self._send_queue, admitted)
        self._key = ticket.key
        session_key.set(self._key)
        return world

    async def _join(self, hello: Hello) -> WorldInfo:
        """Join the world; the welcome (or a place in the queue) is then in the outbox."""
        world = self._engine.info(hello.world)
        check_start(hello.start, self._config)
        at_once = None if has_to_be_read(hello.start) else await self._request(hello.start, None, world)
        self._engine.join(self._key, hello, at_once, self._send_queue, partial(self._signal, self._admitted))
        return world

    async def _open(self, start: StartFrom, world: WorldInfo) -> None:
        """Once there is a slot, and not before: read what it starts from, if it brings something."""
        await self._admitted.wait()
        if has_to_be_read(start):
            self._engine.request_start(self._key, await self._request(start, None, world))
        self._opened.set()

    async def _request(self, start: StartFrom, seq: int | None, world: WorldInfo) -> RunRequest:
        return await start_request(start, seq, world, self._engine, self._config)

    async def _read(self, world: WorldInfo) -> None:
        """Act on messages until `bye`. What is refused but not fatal is answered and forgotten."""
        count = 0
        while True:
            message = self._decode(await self._hear())
            if self._send_queue.ending is not None:  # the session may be another connection's by now
                raise self._send_queue.ending
            if isinstance(message, Bye):
                return
            if not self._allowance.take(time.monotonic()):
                raise RateLimitedError(f"more than {self._config.max_messages_per_s:g} messages a second; send fewer")
            await self._handle(message, world)
            self._check_overflow()
            count += 1
            if count % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _hear(self) -> bytes:
        """The next message; who waits in the queue may be silent for as long as it takes."""
        while True:
            try:
                async with asyncio.timeout(self._config.idle_timeout_s):
                    return await self._transport.receive()
            except TimeoutError as exc:
                if self._admitted.is_set():
                    silence = f"nothing was heard of you for {self._config.idle_timeout_s:g} s"
                    raise IdleError(f"{silence}; your session is kept, resume it with its ticket") from exc

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
                    await self._start_again(message, world)
                case GetLog():
                    await self._send_log(message)
                case _:
                    self._engine.receive(self._key, message)
        except ServerError as error:
            if error.fatal:
                raise
            if error.code not in self._logged:  # once: a client could fill the log
                self._logged.add(error.code)
                logger.info("refused, and further ones of this kind unlogged: %s: %s", error.code, error)
            seq = getattr(message, "seq", None)  # acts and controls have one
            self._send_queue.put(refusal_of(error, "act" if isinstance(message, Act) else "control", seq))

    async def _send_log(self, message: GetLog) -> None:
        if not self._logs.take(time.monotonic()):
            raise TooManyPendingError(f"more than {LOGS_PER_S:g} logs a second; wait for a log's answer, and a moment")
        if (run := self._engine.run_of(self._key)) is not None:
            log = await in_worker_thread(lambda: encode(run.logged(message.seq)))
            self._send_queue.put_encoded(log)
            self._engine.receive(self._key, message)

    async def _start_again(self, message: Start, world: WorldInfo) -> None:
        check_start(message.start, self._config)
        if not self._admitted.is_set():
            return
        await self._opened.wait()  # so that the hello's own start does not overtake this one
        self._engine.request_start(self._key, await self._request(message.start, message.seq, world))

    def _check_overflow(self) -> None:
        if self._send_queue.overflowed:
            raise TooManyPendingError("replies pile up unread; read what the server sends")

    async def _write(self) -> None:
        """Send what the outbox holds, control messages first, until the engine ends the session."""
        while True:
            self._wakeup.clear()
            while (data := self._send_queue.take()) is not None:
                await self._send(data)
                if self._send_queue.last_taken > self._newest_sent:
                    self._newest_sent = self._send_queue.last_taken
                    self._allowance.give(MESSAGES_PER_FRAME, time.monotonic())
                self._check_overflow()
            if self._send_queue.ending is not None:
                raise self._send_queue.ending
            await self._wakeup.wait()

    async def _send(self, data: bytes) -> None:
        """Raises DisconnectedError as well when the client reads nothing for too long."""
        try:
            async with asyncio.timeout(self._config.send_timeout_s):
                await self._transport.send(data)
        except TimeoutError as exc:
            raise DisconnectedError(f"nothing was read for {self._config.send_timeout_s:g} s") from exc
