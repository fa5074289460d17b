"""Sessions whose players are gone: in memory for a while, and on disk where there is a store.

Owns how a session becomes bytes and how long it is kept where. Knows no slots and no connections.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgpack

from server.errors import UnknownTicketError
from server.sessions.branches import Branch
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from server.sessions.session import Session
from server.state import format_1
from server.state.store import Store, StoredSession
from server.state.tickets import Ticket
from world.errors import StateError
from world.rollout.snapshots import from_bytes, to_bytes
from world.rollout.timeline import RolloutState

FORMAT = 2
"""Of a stored session's content. Content without a format is of format 1."""

IN_MEMORY_S = 60.0
"""How long a session stays in memory that is in the store as well."""


@dataclass(frozen=True, slots=True)
class SuspendedSession:
    """A session with its rollout's state and the frames (index, message) that its player may not have received.

    It is not `exact` if it is a copy of a running session: without K/V, and older than what its player has seen.
    """

    session: Session
    ticket: Ticket
    state: RolloutState
    frames: list[tuple[int, bytes]]

    @property
    def exact(self) -> bool:
        return self.state.kv is not None

    def as_branch(self) -> Branch:
        """Return the branch to restart from when the session is not exact."""
        return self.session.run.branch(self.state, self.session.run.frame)

    def to_stored(self, fingerprint: str) -> StoredSession:
        """Return it for the store. fingerprint: of the world that can restore it."""
        session, state, frames = self.session.to_data(), self.state, self.frames

        def data() -> bytes:
            content = {
                "format": FORMAT,
                "fingerprint": fingerprint,
                "session": session,
                "state": to_bytes(state),
                "frames": frames,
            }
            return bytes(msgpack.packb(content))

        generation, world = self.session.generation, self.session.world.name
        return StoredSession(self.ticket.key, self.ticket.secret, generation, world, data)


def from_stored(stored: StoredSession, session: Session, fingerprint: str, now: float) -> SuspendedSession:
    """Restore a stored session into the new `session`. Raise UnknownTicketError for one of another checkpoint, or of
    another version of this program."""
    try:
        content: dict[str, Any] = msgpack.unpackb(stored.data())
        if "format" not in content:
            content = format_1.upgrade(content)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        if content["fingerprint"] != fingerprint:
            raise UnknownTicketError(f"{stored.world} has changed since this session was stored; say hello without it")
        session.restore(content["session"], now)
        session.generation = stored.generation - 1  # resuming counts the claim
        frames = [(int(index), bytes(data)) for index, data in content["frames"]]
        state = from_bytes(content["state"])
    except (KeyError, TypeError, ValueError, StateError, msgpack.UnpackException) as exc:
        raise UnknownTicketError("another version of this server stored this session; say hello without it") from exc
    return SuspendedSession(session, Ticket(stored.key, stored.secret), state, frames)


class SuspendedSessions:
    """The suspended sessions of one server. Every method needs `lock`.

    ttl_s: how long a session is kept; max_suspended: how many stay in memory, the newest ones.
    """

    def __init__(self, store: Store | None, lock: EngineLock, *, ttl_s: float, max_suspended: int) -> None:
        self.store = store
        self._lock = lock
        self._ttl_s, self._max_suspended = ttl_s, max_suspended
        self._in_memory: OrderedDict[str, _InMemory] = OrderedDict()

    def __len__(self) -> int:
        self._lock.assert_held()
        return len(self._in_memory)

    def put(self, suspended: SuspendedSession, fingerprint: str, now: float) -> Future[bool] | None:
        """Keep a session, in the store too where there is one. Return the result of the store's `put`."""
        self._lock.assert_held()
        self._in_memory.pop(suspended.ticket.key, None)
        written = self.store.put(suspended.to_stored(fingerprint)) if self.store else None
        expires_at = now + (IN_MEMORY_S if self.store else self._ttl_s)
        self._in_memory[suspended.ticket.key] = _InMemory(suspended, expires_at, written)
        self.drop_expired(now)
        return written

    def take(self, ticket: Ticket, claimed: StoredSession | None, now: float) -> SuspendedSession | None:
        """Remove and return the session of a ticket; None if it is not in memory or `claimed` is newer."""
        self.drop_expired(now)
        entry = self._in_memory.get(ticket.key)
        if entry is None or not entry.suspended.ticket.matches(ticket):
            return None
        del self._in_memory[ticket.key]
        return entry.suspended if is_newest(entry.suspended.session, claimed) else None

    def expires_at(self) -> float:
        """Return when the oldest session in memory expires; NEVER without one."""
        self._lock.assert_held()
        return next(iter(self._in_memory.values())).expires_at if self._in_memory else NEVER

    def drop_expired(self, now: float) -> None:
        """Drop from memory the sessions whose time is over, and the oldest above `max_suspended`. Those must have been
        written to the store first, if there is one: what it held before is older."""
        self._lock.assert_held()
        while self._in_memory:
            oldest = next(iter(self._in_memory.values()))
            is_surplus = len(self._in_memory) > self._max_suspended and oldest.may_be_dropped
            if oldest.expires_at > now and not is_surplus:
                break
            self._in_memory.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _InMemory:
    suspended: SuspendedSession
    expires_at: float
    written: Future[bool] | None

    @property
    def may_be_dropped(self) -> bool:
        """Return whether the store has the session as it is, or there is no store."""
        return self.written is None or (self.written.done() and self.written.result())


def is_newest(session: Session, claimed: StoredSession | None) -> bool:
    """Return whether no other server has claimed this session since, as far as the store can tell."""
    return claimed is None or claimed.generation == session.generation + 1
