"""Binary messages both ways, as a conversation needs them, and how to end it. Knows no sockets: `app` has the one
implementation of `Transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from server.errors import ServerError
from server.wire.protocol import Error, encode

CLOSE_TIMEOUT_S = 2.0


class DisconnectedError(Exception):
    """The client has gone."""


class Transport(Protocol):
    """Binary messages both ways. `receive` and `send` raise DisconnectedError when the client has gone."""

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


async def refuse(transport: Transport, error: ServerError) -> None:
    """Send the error and close, without waiting long for a client that does not read."""
    message = Error(code=error.code, message=str(error), fatal=True)
    with contextlib.suppress(DisconnectedError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await transport.send(encode(message))
            await transport.close(error.close_code, error.code)
