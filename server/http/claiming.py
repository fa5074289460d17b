"""Claiming a session in the store for a client that resumes it. Owns how long that may take; what the store cannot give
is no reason to refuse a session that is still in memory."""

from __future__ import annotations

import asyncio

from server.engine.engine import Engine
from server.errors import StoreUnavailableError, UnknownTicketError
from server.state.stored_session import ClaimedSession
from server.state.tickets import Ticket
from server.wire.protocol import Hello

CLAIM_TIMEOUT_S = 5.0


async def claim(engine: Engine, ticket: Ticket, hello: Hello, address: str) -> ClaimedSession | None:
    """Claim a session and read it, beside the event loop; None if the store does not have it."""
    if engine.store is None:
        return None
    try:
        async with asyncio.timeout(CLAIM_TIMEOUT_S):
            stored = await asyncio.wrap_future(engine.store.claim(ticket.key, ticket.secret))
    except UnknownTicketError:  # it may not be in the store yet
        return None
    except StoreUnavailableError as error:
        return ClaimedSession(None, error=error)
    except TimeoutError:
        return ClaimedSession(None, error=StoreUnavailableError("the store does not answer; try again later"))
    return await asyncio.to_thread(engine.read_stored, stored, hello, address)
