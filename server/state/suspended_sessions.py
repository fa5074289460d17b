"""Sessions whose players are gone, or might be: in memory for a while, and on disk where there is a store.

Owns tickets, how a session becomes bytes, and how long what is kept where. Thread-safe only under the engine's lock,
but for the store's own thread. Knows no slots and no connections.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from server.engine.scheduler import NEVER
from server.errors import UnknownTicketError
from server.sessions.branches import Branch
from server.sessions.session import Session
from server.state.store import Store, Stored, same

if TYPE_CHECKING:
    from world import RolloutState

IN_MEMORY_S = 60.0
"""How long a session stays in memory that is on disk as well."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Whose session it is, and what proves it."""

    key: str
    secret: str

    @staticmethod
    def of(text: str) -> Ticket:
        """Raises UnknownTicketError."""
        key, dot, secret = text.partition(".")
        if not (key and dot and secret):
            raise UnknownTicketError("that is no ticket of this server's; say hello without it")
        return Ticket(key, secret)

    def __str__(self) -> str:
        return f"{self.key}.{self.secret}"


def new_ticket(key: str) -> Ticket:
    return Ticket(key, secrets.token_urlsafe(24))


@dataclass(frozen=True, slots=True)
class SuspendedSession:
    """A session without a slot: its rollout's state, and the frames (index, message) that its player may not have. Or,
    where it is not `exact`, what a running session was a moment ago."""

    session: Session
    ticket: Ticket
    state: RolloutState
    frames: list[tuple[int, bytes]]

    @property
    def exact(self) -> bool:
        return self.state.kv is not None

    def as_branch(self) -> Branch:
        """What to go on from where frames have been seen that it knows nothing of."""
        return self.session.run.branch(self.state, self.session.run.frame)

    def stored(self, fingerprint: str) -> Stored:
        """For the store. fingerprint: of the world that can go on with it."""
        session, state, frames = self.session.to_data(), self.state, self.frames

        def data() -> bytes:
            from world.rollout.snapshots import to_bytes  # here, since it loads torch

            content = {"fingerprint": fingerprint, "session": session, "state": to_bytes(state), "frames": frames}
            return bytes(msgpack.packb(content))

        return Stored(self.ticket.key, self.ticket.secret, self.session.generation, self.session.world.name, data)


def unpacked(stored: Stored, session: Session, fingerprint: str, now: float) -> SuspendedSession:
    """What `SuspendedSession.stored` made of it, put into a new `session`. Raises UnknownTicketError where it is of another
    checkpoint, or of another version of this program."""
    from world.errors import StateError  # here, since it loads torch
    from world.rollout.snapshots import from_bytes

    try:
        content: dict[str, Any] = msgpack.unpackb(stored.data())
        if content["fingerprint"] != fingerprint:
            raise UnknownTicketError(f"{stored.world} has changed since this session was kept; say hello anew")
        session.restore(content["session"], now)
        session.generation = stored.generation - 1  # `come_back` counts the claim
        frames = [(int(index), bytes(data)) for index, data in content["frames"]]
        state = from_bytes(content["state"])
    except (KeyError, TypeError, ValueError, StateError, msgpack.UnpackException) as exc:
        raise UnknownTicketError("this session was kept by another version of this server; say hello anew") from exc
    return SuspendedSession(session, Ticket(stored.key, stored.secret), state, frames)


class SuspendedSessions:
    """`ttl_s`: how long a session is kept at all; `max_suspended`: how many in memory, the newest ones."""

    def __init__(self, store: Store | None, ttl_s: float, max_suspended: int) -> None:
        self.store = store
        self._ttl_s, self._max_suspended = ttl_s, max_suspended
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, suspended: SuspendedSession, fingerprint: str, now: float) -> Future[bool] | None:
        """Keep it, on disk too where there is a store: whether that went well, once it is known."""
        self._kept.pop(suspended.ticket.key, None)
        written = self.store.put(suspended.stored(fingerprint)) if self.store else None
        expires_at = now + (IN_MEMORY_S if self.store else self._ttl_s)
        self._kept[suspended.ticket.key] = _Kept(suspended, expires_at, written)
        self.forget(now)
        return written

    def take(self, ticket: Ticket, claimed: Stored | None, now: float) -> SuspendedSession | None:
        """The session of this ticket, if it is in memory; where it was claimed from the store, if it is no older."""
        self.forget(now)
        kept = self._kept.get(ticket.key)
        if kept is None or not same(kept.suspended.ticket.secret, ticket.secret):
            return None
        del self._kept[ticket.key]
        return kept.suspended if is_newest(kept.suspended.session, claimed) else None

    def expires_at(self) -> float:
        """When the oldest is to be forgotten."""
        return next(iter(self._kept.values())).expires_at if self._kept else NEVER

    def forget(self, now: float) -> None:
        """Those whose time in memory is over, and the oldest where there are too many; but none that is not on disk as
        it is, where it should be: what is there is older."""
        while self._kept:
            oldest = next(iter(self._kept.values()))
            is_one_too_many = len(self._kept) > self._max_suspended and oldest.is_safe
            if oldest.expires_at > now and not is_one_too_many:
                break
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    suspended: SuspendedSession
    expires_at: float
    written: Future[bool] | None

    @property
    def is_safe(self) -> bool:
        """Whether nothing would be better for keeping it here."""
        return self.written is None or (self.written.done() and self.written.result())


def is_newest(session: Session, claimed: Stored | None) -> bool:
    """Whether no other server has had this session since, as far as a store can tell."""
    return claimed is None or claimed.generation == session.generation + 1
