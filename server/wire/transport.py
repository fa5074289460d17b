"""The interface between a connection and its socket: binary messages in both directions, and how to refuse a client.

Knows no sockets: the only implementation of `Transport` is in `server.http.app`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from server.errors import ServerError
from server.wire.protocol import Error, encode

CLOSE_TIMEOUT_S = 2.0


class DisconnectedError(Exception):
    """The client is gone."""


class Transport(Protocol):
    """Binary messages in both directions. `receive` and `send` raise DisconnectedError when the client is gone."""

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


async def refuse(transport: Transport, error: ServerError) -> None:
    """Send the error and close; give up after `CLOSE_TIMEOUT_S` if the client does not read."""
    message = Error(code=error.code, message=str(error), fatal=True)
    with contextlib.suppress(DisconnectedError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await transport.send(encode(message))
            await transport.close(error.close_code, error.code)
