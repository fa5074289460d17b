"""From an address to a session. Owns the options of the handshake; the rest is `link`'s and `session`'s."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from lightcone_client.link import Link
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
    """A session in `world` of the server at `url`, open inside `async with`.

    Starts from the world's start `index`, from a picture or clip `image`, from a `branch` (the ticket of a fork), or
    from a `state` (what `Session.save` gave); `seed` fixes the noise. `encoding="png"` is exact.
    A connection that is lost is made anew for up to `resume_s` seconds (0: not at all), here or at one of `also`, other
    servers of the same store; the session goes on where it was. `ticket` (a welcome's `resume_ticket`) goes on with the
    session of a process before this one.
    `timeout_s` bounds connecting; waiting in the queue is not bounded (`on_queued` hears of it).
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
    link = Link([url, *also], hello, timeout_s=timeout_s, resume_s=resume_s)
    await link.open(ticket, on_queued)
    session = Session(link, auto_ack=auto_ack)
    try:
        yield session
    finally:
        await session.close()
