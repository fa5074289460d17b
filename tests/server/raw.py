"""A client for tests that sends and receives single messages and does nothing by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.wire.protocol import (
    PROTOCOL_VERSION,
    Ack,
    ClientMessage,
    Error,
    Frame,
    Hello,
    Receipt,
    ServerMessage,
    Welcome,
    decode_server,
    encode,
)

TIMEOUT_S = 20.0


class Raw:
    """A connected client."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.welcome: Welcome

    async def send(self, message: ClientMessage) -> None:
        await self.socket.send(encode(message))

    async def receive(self) -> ServerMessage:
        async with asyncio.timeout(TIMEOUT_S):
            data = await self.socket.recv()
        assert isinstance(data, bytes)
        return decode_server(data)

    async def frame(self) -> Frame:
        """Return the next frame; skip other messages, fail the test on an error."""
        while True:
            message = await self.receive()
            assert not isinstance(message, Error), message
            if isinstance(message, Frame):
                return message

    async def play(self, num_frames: int) -> list[Frame]:
        """Return the next frames; acknowledge each."""
        frames = []
        for _ in range(num_frames):
            frames.append(frame := await self.frame())
            await self.send(Ack(frame=frame.index))
        return frames

    async def control_receipt(self, seq: int) -> Receipt:
        """Return the receipt of a control; skip other messages, acknowledge frames."""
        while True:
            message = await self.receive()
            if isinstance(message, Receipt) and message.about == "control" and message.seq == seq:
                return message
            if isinstance(message, Frame):
                await self.send(Ack(frame=message.index))

    async def error(self) -> Error:
        """Return the next error; skip other messages."""
        while not isinstance(message := await self.receive(), Error):
            pass
        return message

    async def close_code(self) -> int | None:
        """Return the server's close code; skip all messages before."""
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
        return self.socket.close_code


@asynccontextmanager
async def raw_client(url: str, hello: Hello | None = None, **options: object) -> AsyncIterator[Raw]:
    """Connect; with `hello`, also wait for the welcome."""
    stream = url.replace("http", "ws") + "/v1/stream"
    async with connect(stream, **{"compression": None, "max_queue": None, **options}) as socket:  # type: ignore[arg-type]  # passed through
        client = Raw(socket)
        if hello is not None:
            await client.send(hello)
            welcome = await client.receive()
            assert isinstance(welcome, Welcome), welcome
            client.welcome = welcome
        yield client


RawClient = Callable[..., AbstractAsyncContextManager[Raw]]


def hello(world: str = "pixel", **fields: object) -> Hello:
    return Hello.model_validate({"version": PROTOCOL_VERSION, "world": world, "encodings": ["png"], **fields})
