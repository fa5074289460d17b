"""New sessions and stored ones, and the `welcome` that describes one. Owns what of the settings and of `hello` goes
into them."""

from __future__ import annotations

import time

from server.admission.session_entry import SessionEntry
from server.config import ServerConfig
from server.errors import ServerError
from server.sessions.session import Session
from server.state.state_owner import StateOwner
from server.state.store import StoredSession
from server.state.stored_session import ClaimedSession, from_stored
from server.wire.frames import choose_encoding
from server.wire.protocol import PROTOCOL_VERSION, Hello, Welcome, WorldInfo


def new_session(key: str, hello: Hello, world: WorldInfo, config: ServerConfig) -> Session:
    """Return a session as `hello` requests it. Raise UnsupportedError if there is no encoding in common."""
    return Session(
        key,
        world,
        world.chunk_frames,
        encoding=choose_encoding(hello.encodings),
        jpeg_quality=config.jpeg_quality,
        pacing=hello.pacing,
        receipts=hello.receipts,
        max_unacked=config.max_unacked_chunks,
        max_pending_acts=config.max_pending_acts,
        timeline_frames=world.timeline_frames,
    )


def welcome(entry: SessionEntry, config: ServerConfig) -> Welcome:
    """Return the message that tells a client of its slot."""
    session = entry.session
    return Welcome(
        version=PROTOCOL_VERSION,
        session=session.key,
        resume_ticket=str(entry.ticket) if config.resume_s else None,
        world=session.world,
        encoding=session.encoding,
        pacing=session.pacing,
        limits=config.limits.model_copy(update={"timeline_frames": session.world.timeline_frames}),
        generation=session.generation,
        last_seq=session.last_seq if session.generation else None,
    )


def read_stored(
    stored: StoredSession, hello: Hello, world: WorldInfo, owner: StateOwner, config: ServerConfig, address: str
) -> ClaimedSession:
    """Read a session that was claimed in the store. Takes as long as a few steps; needs no lock."""
    try:
        session = new_session(stored.key, hello, world, config)
        return ClaimedSession(stored.generation, from_stored(stored, session, owner, time.monotonic(), address))
    except ServerError as error:  # the session may still be in memory here
        return ClaimedSession(stored.generation, error=error)
