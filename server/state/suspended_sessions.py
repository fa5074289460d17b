"""Sessions whose players are gone: in memory for a while, and on disk where there is a store.

Owns how long a session is kept where, and how much memory all of them take. Knows no slots and no connections.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from server.sessions.session import Session
from server.state.store import Store, Written
from server.state.stored_session import ClaimedSession, SuspendedSession
from server.state.tickets import Ticket

IN_MEMORY_S = 60.0
"""How long a session stays in memory that is in the store as well."""

CLAIM_S = 10.0
"""How long at most a server needs from claiming a session until it is resumed."""

RETRY_S = 10.0
"""How long after a failed write the next one is tried."""

SHARE_OF_ADDRESS = 0.25
"""How much of the memory the sessions of one address may take."""


class SuspendedSessions:
    """The suspended sessions of one server. Every method needs `lock`.

    ttl_s: how long a session is kept; max_suspended: how many stay in memory, the newest ones; max_bytes: the most
    memory that they take.
    """

    def __init__(
        self,
        store: Store | None,
        lock: EngineLock,
        *,
        ttl_s: float,
        max_suspended: int,
        max_bytes: int,
    ) -> None:
        self.store = store
        self._lock = lock
        self._ttl_s, self._max_suspended, self._max_bytes = ttl_s, max_suspended, max_bytes
        self._in_memory: OrderedDict[str, _InMemory] = OrderedDict()

    def __len__(self) -> int:
        self._lock.assert_held()
        return len(self._in_memory)

    def put(self, suspended: SuspendedSession, fingerprint: str, now: float) -> Future[Written] | None:
        """Keep a session, in the store too where there is one. Return the result of the store's `put`.

        One that is larger than an address' share is kept without its K/V.
        """
        self._lock.assert_held()
        key = suspended.ticket.key
        self._in_memory.pop(key, None)
        largest = int(self._max_bytes * SHARE_OF_ADDRESS)
        if self.store is not None:
            largest = min(largest, self.store.max_session_bytes)
        if suspended.num_bytes > largest:
            suspended = suspended.without_kv()
        kept = _InMemory(suspended, fingerprint, now, self._write(suspended, fingerprint), now + RETRY_S)
        self._in_memory[key] = kept
        self.drop_expired(now)
        return kept.written

    def take(self, ticket: Ticket, claimed: ClaimedSession | None, now: float) -> SuspendedSession | None:
        """Remove and return the session of a ticket; None if it is not in memory or `claimed` is newer."""
        self.drop_expired(now)
        kept = self._in_memory.get(ticket.key)
        if kept is None or not kept.suspended.ticket.matches(ticket):
            return None
        del self._in_memory[ticket.key]
        return kept.suspended if is_newest(kept.suspended.session, claimed) else None

    def expires_at(self) -> float:
        """Return when something is to be dropped or written again; NEVER without a session in memory."""
        self._lock.assert_held()
        return min((kept.due_at(self._ttl_s) for kept in self._in_memory.values()), default=NEVER)

    def drop_expired(self, now: float) -> None:
        """Drop from memory the sessions whose time is over, and the oldest above the limits: first those that the store
        has too. What the store could not write is written again."""
        self._lock.assert_held()
        for key, kept in list(self._in_memory.items()):
            if kept.expires_at(self._ttl_s) <= now:
                del self._in_memory[key]
            elif kept.has_failed and kept.retry_at <= now:
                kept.written, kept.retry_at = self._write(kept.suspended, kept.fingerprint), now + RETRY_S
        self._drop_surplus(lambda kept: kept.is_stored)
        self._drop_surplus(lambda kept: not kept.is_being_written and not kept.may_be_resumed_now(now))

    def _write(self, suspended: SuspendedSession, fingerprint: str) -> Future[Written] | None:
        return None if self.store is None else self.store.put(suspended.to_stored(fingerprint))

    def _drop_surplus(self, may_be_dropped: Callable[[_InMemory], bool]) -> None:
        """Drop the oldest that may be dropped until the limits hold, or nothing else may be dropped."""
        by_address: Counter[str] = Counter()
        for kept in self._in_memory.values():
            by_address[kept.suspended.address] += kept.num_bytes
        num_bytes, share = by_address.total(), self._max_bytes * SHARE_OF_ADDRESS
        for key, kept in list(self._in_memory.items()):
            is_surplus = len(self._in_memory) > self._max_suspended or num_bytes > self._max_bytes
            if (is_surplus or by_address[kept.suspended.address] > share) and may_be_dropped(kept):
                by_address[kept.suspended.address] -= kept.num_bytes
                num_bytes -= kept.num_bytes
                del self._in_memory[key]


@dataclass(slots=True)
class _InMemory:
    """A session in memory. written: the result of its last write, None without a store."""

    suspended: SuspendedSession
    fingerprint: str
    since: float
    written: Future[Written] | None
    retry_at: float
    num_bytes: int = 0

    def __post_init__(self) -> None:
        self.num_bytes = self.suspended.num_bytes

    @property
    def is_stored(self) -> bool:
        """Return whether the store has the session as it is."""
        return self._ended(Written.DONE)

    @property
    def is_claimed(self) -> bool:
        """Return whether another server has the session by now, or this one is about to resume it."""
        return self._ended(Written.CLAIMED)

    @property
    def has_failed(self) -> bool:
        return self._ended(Written.FAILED)

    @property
    def is_being_written(self) -> bool:
        return self.written is not None and not self.written.done()

    def may_be_resumed_now(self, now: float) -> bool:
        """Return whether whoever claimed the session lately may be this server, about to resume it from here."""
        return self.is_claimed and now < self.since + CLAIM_S

    def expires_at(self, ttl_s: float) -> float:
        return self.since + (min(IN_MEMORY_S, ttl_s) if self.is_stored or self.is_claimed else ttl_s)

    def due_at(self, ttl_s: float) -> float:
        """Return when it is to be dropped, or written again."""
        return min(self.expires_at(ttl_s), self.retry_at if self.has_failed else NEVER)

    def _ended(self, how: Written) -> bool:
        return self.written is not None and self.written.done() and self.written.result() is how


def is_newest(session: Session, claimed: ClaimedSession | None) -> bool:
    """Return whether no other server has claimed this session since, as far as the store can tell. The store's
    generation is the lower one if it could not be asked or written meanwhile."""
    return claimed is None or claimed.generation is None or claimed.generation <= session.generation + 1
