"""Opening a session. Owns the options of the handshake; `connection` owns the socket and `session` the session."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from lightcone_client.connection import Connection
from lightcone_client.messages import PROTOCOL_VERSION, Queued
from lightcone_client.session import Pacing, Session


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
    state: bytes | None = None,
    seed: int | None = None,
    receipts: bool = False,
    token: str | None = None,
    ticket: str | None = None,
    also: Sequence[str] = (),
    resume_s: float = 60.0,
    auto_ack: bool = True,
    timeout_s: float = 30.0,
    on_queued: Callable[[Queued], None] | None = None,
) -> AsyncIterator[Session]:
    """Open a session in `world` on the server at `url`; leaving `async with` closes it.

    The session starts from one of the world's starts (`index`), from a picture or clip (`image`), from the ticket of a
    fork (`branch`) or from a saved session (`state`, the result of `Session.save`); `seed` fixes the noise.
    `encoding="png"` is lossless.
    A lost connection is reopened for up to `resume_s` seconds (0 disables this), to `url` or to one of `also`, other
    servers that share its store; the session then resumes where it was. `ticket`, the `resume_ticket` of an earlier
    welcome, resumes a session that another process opened.
    `timeout_s` bounds connecting. Waiting in the admission queue is not bounded; `on_queued` is called with each
    position.
    Raises ConnectionFailedError or RefusedError.
    """
    hello = {
        "version": PROTOCOL_VERSION,
        "world": world,
        "encodings": [encoding],
        "pacing": pacing,
        "start": {"index": index, "image": image, "branch": branch, "state": state, "seed": seed},
        "receipts": receipts,
        "token": token,
    }
    connection = Connection([url, *also], hello, timeout_s=timeout_s, resume_s=resume_s)
    await connection.open(ticket, on_queued)
    session = Session(connection, auto_ack=auto_ack)
    try:
        yield session
    finally:
        await session.close()
