"""One client's connection, from `hello` to the close, over any transport of binary messages.

Owns the order of events: handshake, then reading and writing at the same time, then leaving. Knows no sockets (see
`server.wire.transport`) and no models (the engine has them).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from functools import partial

from server.admission.session_entry import Client
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
    RateLimitedError,
    ServerError,
    TooManyConnectionsError,
    TooManyPendingError,
)
from server.http.budgets import MESSAGE, cost_of
from server.http.claiming import claim
from server.http.connection_limits import ConnectionPermit
from server.http.incoming import decode_within
from server.http.start_requests import carries_file, check_start, run_in_worker_thread, start_request
from server.http.token_bucket import TokenBucket
from server.sessions.run import RunRequest
from server.state.tickets import Ticket
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
    encode,
    error_reply,
)
from server.wire.send_queue import SendQueue
from server.wire.transport import CLOSE_TIMEOUT_S, DisconnectedError, Transport, refuse

logger = logging.getLogger(__name__)

MESSAGES_PER_TURN = 32  # messages read from one client before the other connections get a turn
MESSAGES_PER_FRAME = 2.0  # an act and an ack: a client may answer frames as fast as it receives them
LOGS_PER_S, LOGS_AT_ONCE = 2.0, 4.0
FAULTS = (CloseCode.POLICY, CloseCode.TOO_BIG)  # after these the session is not kept for a resume


async def serve_connection(
    transport: Transport, engine: Engine, config: ServerConfig, permit: ConnectionPermit
) -> ServerError | None:
    """Serve one client until it leaves, is refused or disconnects; return the error that ended the connection, if any.

    Never raises because of what a client does. The token of `hello` must be sufficient for `permit`, which also says
    whose budget is charged.
    """
    connection = Connection(transport, engine, config, permit)
    try:
        for_good = False
        try:
            await connection.run()
            for_good = True
        except ServerError as error:
            for_good = error.close_code in FAULTS
            raise
        finally:
            connection.leave(for_good=for_good)  # before closing, which a client that does not read can delay
        logger.info("left")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await transport.close(CloseCode.NORMAL, "bye")
    except DisconnectedError as gone:
        logger.info("connection lost%s", f": {gone}" if gone.args else "")
    except ServerError as error:
        logger.info("refused: %s: %s", error.code, error)
        await refuse(transport, error)
        return error
    except Exception:  # a fault of the server, which the client must learn of, without the details
        logger.exception("a connection failed")
        await refuse(transport, InternalError("the server failed; its log says why"))
    return None


class Connection:
    """The state of one connection on the event loop."""

    def __init__(self, transport: Transport, engine: Engine, config: ServerConfig, permit: ConnectionPermit) -> None:
        self._permit = permit
        self._key = secrets.token_urlsafe(9)
        session_key.set(self._key)
        self._transport = transport
        self._engine, self._config = engine, config
        self._loop = asyncio.get_running_loop()
        self._wakeup = asyncio.Event()
        self._send_queue = SendQueue(partial(self._signal, self._wakeup), engine.metrics.count_frames)
        self._admitted, self._opened = asyncio.Event(), asyncio.Event()  # opened: the first start is requested, too
        self._client = Client(self._send_queue, partial(self._signal, self._admitted), permit.address)
        self._allowance = TokenBucket(config.max_messages_per_s, config.max_messages_per_s, time.monotonic())
        self._newest_sent, self._keep = -1, False
        self._logs = TokenBucket(LOGS_PER_S, LOGS_AT_ONCE, time.monotonic())
        self._logged_codes: set[ErrorCode] = set()

    async def run(self) -> None:
        """Do the handshake, then read and write until either ends. Returns after `bye`; otherwise raises."""
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
        except DisconnectedError as gone:
            if isinstance(gone.__cause__, TimeoutError):
                raise
            # Writing may notice the end first; what the client sent before it still counts, above all a bye.
            await asyncio.wait({reading}, timeout=CLOSE_TIMEOUT_S)
            if not reading.done():
                raise
            reading.result()
        finally:
            for task in (opening, reading, writing):
                task.cancel()
            await asyncio.gather(opening, reading, writing, return_exceptions=True)

    def leave(self, *, for_good: bool) -> None:
        """Tell the engine, which ignores it if another connection has taken over the session."""
        self._send_queue.detach()
        if for_good and not self._keep:
            self._engine.leave(self._key, self._send_queue)
        else:
            self._engine.lose(self._key, self._send_queue, at_once=self._keep)

    def _signal(self, event: asyncio.Event) -> None:
        """Set an event, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits any more
            self._loop.call_soon_threadsafe(event.set)

    async def _handshake(self) -> Hello:
        """Receive and check the hello."""
        try:
            async with asyncio.timeout(self._config.handshake_timeout_s):
                data = await self._transport.receive()
        except TimeoutError as exc:
            raise HandshakeTimeoutError(f"no hello received within {self._config.handshake_timeout_s:g} s") from exc
        hello = decode_within(self._config.max_message_bytes, data)
        if not isinstance(hello, Hello):
            raise BadMessageError(f"{hello.type}: the first message must be hello")
        if hello.version != PROTOCOL_VERSION:
            raise BadVersionError(f"protocol version {hello.version}: this server speaks {PROTOCOL_VERSION}")
        self._permit.authenticate(hello.token)
        if not self._permit.afford(cost_of(hello)):
            raise TooManyConnectionsError("your address asks for too much; wait a few seconds and connect again")
        return hello

    async def _resume(self, hello: Hello, resume: Resume) -> WorldInfo:
        """Resume an earlier session. A connection that has it, here or on another server of the store, loses it."""
        ticket = Ticket.of(resume.ticket)
        self._engine.info(hello.world, resuming=True)  # raises before anything is claimed
        claimed = await claim(self._engine, ticket, hello, self._permit.address)
        self._key = ticket.key  # from here on the session may be this connection's, whatever fails
        session_key.set(self._key)
        return self._engine.resume(ticket, hello, resume.last_frame, claimed, self._client)

    async def _join(self, hello: Hello) -> WorldInfo:
        """Join the world. `welcome` or `queued` is then in the send queue."""
        world = self._engine.info(hello.world)
        check_start(hello.start, self._config)
        request = None if carries_file(hello.start) else await self._request(hello.start, None, world)
        self._engine.join(self._key, hello, request, self._client)
        return world

    async def _open(self, start: StartFrom, world: WorldInfo) -> None:
        """Wait for a slot, then decode the picture or file to start from, if there is one."""
        await self._admitted.wait()
        if carries_file(start):
            self._engine.request_start(self._key, await self._request(start, None, world))
        self._opened.set()

    async def _request(self, start: StartFrom, seq: int | None, world: WorldInfo) -> RunRequest:
        return await start_request(start, seq, world, self._engine, self._config)

    async def _read(self, world: WorldInfo) -> None:
        """Handle messages until `bye`. Errors that are not fatal are sent to the client."""
        count = 0
        while True:
            message = decode_within(self._config.max_message_bytes, await self._receive())
            if self._send_queue.ending is not None:  # another connection may have taken over the session
                raise self._send_queue.ending
            if isinstance(message, Bye):
                self._keep = message.keep
                return
            if not self._allowance.take(time.monotonic()):
                raise RateLimitedError(f"more than {self._config.max_messages_per_s:g} messages per second; send fewer")
            await self._handle(message, world)
            self._check_overflow()
            count += 1
            if count % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _receive(self) -> bytes:
        """Return the next message. Raises IdleError after a long silence, except while the client is queued."""
        while True:
            try:
                async with asyncio.timeout(self._config.idle_timeout_s):
                    return await self._transport.receive()
            except TimeoutError as exc:
                if self._admitted.is_set():
                    silence = f"no message received for {self._config.idle_timeout_s:g} s"
                    raise IdleError(f"{silence}; the session is kept, resume it with its ticket") from exc

    async def _handle(self, message: ClientMessage, world: WorldInfo) -> None:
        try:
            if (cost := cost_of(message)) and not self._permit.afford(cost):
                raise TooManyPendingError("your address asks for too much; wait a moment and try again")
            match message:
                case Hello() | Bye():
                    raise BadMessageError(f"{message.type}: allowed only once, as the first message")
                case Start():
                    await self._start_again(message, world)
                case GetLog():
                    await self._send_log(message)
                case _:
                    self._engine.receive(self._key, message)
        except ServerError as error:
            if error.fatal:
                raise
            if error.code not in self._logged_codes:  # once per code, so that a client cannot fill the log
                self._logged_codes.add(error.code)
                logger.info("refused (further errors with this code are not logged): %s: %s", error.code, error)
            seq = getattr(message, "seq", None)  # only acts and controls have one
            self._send_queue.put(error_reply(error, "act" if isinstance(message, Act) else "control", seq))

    async def _send_log(self, message: GetLog) -> None:
        if not self._logs.take(time.monotonic()):
            raise TooManyPendingError(f"more than {LOGS_PER_S:g} logs per second; wait a moment after each one")
        if (run := self._engine.run_of(self._key)) is not None:
            log = await run_in_worker_thread(lambda: encode(run.logged(message.seq)))
            self._send_queue.put_encoded(log)
            self._engine.receive(self._key, message)

    async def _start_again(self, message: Start, world: WorldInfo) -> None:
        check_start(message.start, self._config)
        if not self._admitted.is_set():
            return
        await self._opened.wait()  # so that the start of the hello does not come after this one
        self._engine.request_start(self._key, await self._request(message.start, message.seq, world))

    def _check_overflow(self) -> None:
        if self._send_queue.overflowed:
            raise TooManyPendingError("too many unread replies; read what the server sends")

    async def _write(self) -> None:
        """Send what is in the send queue until the engine ends the session."""
        while True:
            self._wakeup.clear()
            while (data := self._send_queue.take()) is not None:
                await self._send(data)
                if self._send_queue.last_taken > self._newest_sent:
                    self._newest_sent = self._send_queue.last_taken
                    self._allowance.give(MESSAGES_PER_FRAME, time.monotonic())
                    self._permit.give_back(MESSAGES_PER_FRAME * MESSAGE)
                self._check_overflow()
            if self._send_queue.ending is not None:
                raise self._send_queue.ending
            await self._wakeup.wait()

    async def _send(self, data: bytes) -> None:
        """Send one message. Raises DisconnectedError also if the client reads nothing for too long."""
        try:
            async with asyncio.timeout(self._config.send_timeout_s):
                await self._transport.send(data)
        except TimeoutError as exc:
            raise DisconnectedError(f"the client read nothing for {self._config.send_timeout_s:g} s") from exc
