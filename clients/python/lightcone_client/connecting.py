"""From an address to a session. Owns the handshake's options and what cannot be reached; the rest is `session`'s."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import websockets.asyncio.client
from websockets.exceptions import InvalidHandshake, InvalidURI

from lightcone_client.errors import ConnectionFailedError
from lightcone_client.messages import PROTOCOL_VERSION, Queued, pack
from lightcone_client.session import Pacing, Session

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def stream_url(url: str) -> str:
    """The stream's address from a server's: `http://host:8000` becomes `ws://host:8000/v1/stream`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path if parts.path not in ("", "/") else "/v1/stream", "", ""))


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    world: str,
    pacing: Pacing = "realtime",
    encoding: Literal["jpeg", "png"] = "jpeg",
    index: int | None = None,
    image: bytes | None = None,
    branch: str | None = None,
    seed: int | None = None,
    receipts: bool = False,
    token: str | None = None,
    auto_ack: bool = True,
    timeout_s: float = 30.0,
    on_queued: Callable[[Queued], None] | None = None,
) -> AsyncIterator[Session]:
    """A session in `world` of the server at `url`, open inside `async with`.

    Starts from the world's start `index`, from a picture `image`, or from a `branch` (the ticket of a fork); `seed`
    fixes the noise. `encoding="png"` is exact.
    `timeout_s` bounds connecting; waiting in the queue is not bounded (`on_queued` hears of it).
    Raises ConnectionFailedError or RefusedError.
    """
    hello = pack(
        "hello",
        version=PROTOCOL_VERSION,
        world=world,
        encodings=[encoding],
        pacing=pacing,
        start={"index": index, "image": image, "branch": branch, "seed": seed},
        receipts=receipts,
        token=token,
    )
    try:
        socket = await websockets.asyncio.client.connect(
            stream_url(url), compression=None, max_size=MAX_MESSAGE_BYTES, open_timeout=timeout_s
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as exc:
        raise ConnectionFailedError(f"no Lightcone server answers at {url}: {exc}") from exc
    session = Session(socket, auto_ack=auto_ack)
    try:
        await session.open(hello, on_queued)
        yield session
    finally:
        await session.close()
