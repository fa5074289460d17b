"""Accepts connections. Owns the listening sockets' turns, the reserve of file descriptors, and how a connection is
refused before it has said anything; knows neither HTTP nor sessions.

asyncio's own servers accept without limit, and at the limit of the process log a traceback for each attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial

from server.http.budgets import CONNECTION, TLS_HANDSHAKE, Budgets, Meter

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

ACCEPTS_PER_TURN = 16
REFUSING_PAUSE_S = 0.01
"""After a turn in which somebody was refused: a flood of connections takes no more than a small part of the loop."""

EXHAUSTED_PAUSE_S = 0.25
LOG_EVERY_S = 60.0
RESERVED_DESCRIPTORS = 64
"""Left free for files, the store and whatever else the process opens while it serves."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE)
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def free_descriptors() -> int:
    """Return how many connections the process may have open, by its limit of file descriptors."""
    if resource is None:
        return 2**31
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return 2**31
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = 0
    return max(1, limit - used - RESERVED_DESCRIPTORS)


class Acceptor:
    """Accepts connections for `make_protocol` and passes each one's meter, as long as `budgets` has room.

    max_open: of all addresses together. tls: to speak TLS; the handshake must be done `timeout_s` after the connection
    was made, whether or not the client has sent anything.
    """

    def __init__(
        self,
        budgets: Budgets,
        make_protocol: Callable[[Meter], asyncio.BaseProtocol],
        *,
        max_open: int,
        tls: ssl.SSLContext | None,
        timeout_s: float,
    ) -> None:
        self._budgets, self._make_protocol = budgets, make_protocol
        self._max_open, self._tls, self._timeout_s = max_open, tls, timeout_s
        self._loop = asyncio.get_running_loop()
        self._listeners: set[socket.socket] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._logged_at = -LOG_EVERY_S
        self.num_refused = 0

    def listen(self, listener: socket.socket) -> None:
        """Begin to accept connections of a socket that listens already. It stays the caller's."""
        listener.setblocking(False)
        self._listeners.add(listener)
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    def close(self) -> None:
        """Accept no more connections, and give up those whose handshake is not done."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
        self._listeners.clear()
        for task in self._connecting:
            task.cancel()

    def _accept(self, listener: socket.socket) -> None:
        num_refused = self.num_refused
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as exc:
                remedy = "; raise the limit of open files (ulimit -n)" * (exc.errno in EXHAUSTED)
                self._warn(f"no connection can be accepted (%s){remedy}", exc)
                self._pause(listener, EXHAUSTED_PAUSE_S)
                return
            self._take(connection, peer[0] if isinstance(peer, tuple) else "")
        if self.num_refused > num_refused:
            self._pause(listener, REFUSING_PAUSE_S)

    def _take(self, connection: socket.socket, host: str) -> None:
        """Keep a new connection, or refuse it."""
        if self._budgets.num_open >= self._max_open:
            self._warn("%d connections are open, which is all this process can have", self._budgets.num_open)
            meter = None
        else:
            meter = self._budgets.open(host, CONNECTION + (TLS_HANDSHAKE if self._tls else 0.0))
        if meter is None:
            self.num_refused += 1
            self._refuse(connection)
            return
        task = self._loop.create_task(self._connect(connection, meter))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket, meter: Meter) -> None:
        connection.setblocking(False)
        timeout_s = self._timeout_s if self._tls else None
        try:
            await self._loop.connect_accepted_socket(
                partial(self._make_protocol, meter), connection, ssl=self._tls, ssl_handshake_timeout=timeout_s
            )
        except BaseException as exc:
            meter.close()
            connection.close()
            if not isinstance(exc, OSError):  # of the client, such as a failed handshake
                raise

    def _refuse(self, connection: socket.socket) -> None:
        """Close a connection; say why where that takes no handshake."""
        with contextlib.suppress(OSError), connection:
            if self._tls is None:
                connection.setblocking(False)
                connection.send(BUSY)
                connection.shutdown(socket.SHUT_WR)

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        """Accept nothing for a while; new connections wait in the kernel."""
        self._loop.remove_reader(listener.fileno())

        def go_on() -> None:
            if listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

        self._loop.call_later(seconds, go_on)

    def _warn(self, message: str, value: object) -> None:
        """Log a warning, at most every `LOG_EVERY_S`: what can be caused from outside must not fill the log."""
        if (now := time.monotonic()) >= self._logged_at + LOG_EVERY_S:
            self._logged_at = now
            logger.warning(message, value)
