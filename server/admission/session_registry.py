"""The sessions of one engine: who plays, who is queued, whose connection is lost. Owns how they come and go, and who
may resume what.

Every method needs the engine's lock and may be called from any thread. Knows no models; what needs one is a slot job.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from server.admission.goodbye import end_after, say_goodbye
from server.admission.session_entry import Client, SessionEntry
from server.admission.session_factory import new_session
from server.admission.session_table import ServedWorlds, SessionTable, last_seen
from server.config import ServerConfig
from server.errors import ServerError, TakenOverError, UnknownTicketError
from server.sessions.life import Event, Phase
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from server.sessions.run import BranchRequest, RunRequest
from server.sessions.session import Request, Session
from server.state.store import UNKNOWN_TICKET, Store, Written
from server.state.stored_session import ClaimedSession, SuspendedSession
from server.state.suspended_sessions import SuspendedSessions, is_newest
from server.state.tickets import Ticket, new_ticket
from server.telemetry.metrics import Metrics, SessionCounts
from server.telemetry.tracing import Tracer
from server.wire.protocol import Hello, ServerMessage
from server.wire.send_queue import SendQueue

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 0.25
"""How often the queue is checked: a player who pauses makes room without a message."""


class SessionRegistry:
    """All sessions with a slot or a place in the queue, and the suspended ones.

    Changes go to `metrics` and `tracer`, and notify `lock`. on_unwritten: called, from any thread, with the arguments
    for `unwritten`.
    """

    def __init__(
        self,
        config: ServerConfig,
        worlds: ServedWorlds,
        store: Store | None,
        metrics: Metrics,
        tracer: Tracer,
        lock: EngineLock,
        on_unwritten: Callable[[SessionEntry, int, Written], None],
    ) -> None:
        self._config, self._worlds, self._metrics, self._lock = config, worlds, metrics, lock
        self._on_unwritten = on_unwritten
        self._table = SessionTable(config, worlds, metrics, tracer, lock)
        self.suspended_sessions = SuspendedSessions(
            store,
            lock,
            ttl_s=config.resume_s,
            max_suspended=config.max_suspended,
            max_bytes=config.suspended_bytes,
        )
        self._maintained_at = -NEVER
        self.closed: ServerError | None = None  # why nobody may join any more
        self._writes = True

    @property
    def entries(self) -> dict[str, SessionEntry]:
        """Return the sessions that have a slot or a place in the queue, by key."""
        self._lock.assert_held()
        return self._table.entries

    def counts(self) -> SessionCounts:
        self._lock.assert_held()
        queue, without_owner = self._table.queue, self._table.without_owner()
        return SessionCounts(queue.num_active, queue.num_waiting, len(self.suspended_sessions), len(without_owner))

    @property
    def freed_slots(self) -> deque[tuple[str, int]]:
        """Return the slots (world, slot) that sessions have left; whoever releases their contents empties it."""
        self._lock.assert_held()
        return self._table.freed_slots

    def with_slot(self) -> list[SessionEntry]:
        """Return the sessions that have a slot."""
        return self._table.with_slot()

    def has(self, entry: SessionEntry) -> bool:
        """Return whether the session is still registered."""
        return self._table.has(entry)

    # ---- connections

    def join(self, key: str, hello: Hello, start: RunRequest | None, client: Client) -> Session:
        """Add a new player's session; without `start` it waits for one. Raise a ServerError."""
        self._lock.assert_held()
        session = new_session(key, hello, self._worlds.info(hello.world), self._config)
        if start is not None:
            session.request_start(start, time.monotonic())
        self._table.add(SessionEntry(session, client.send_queue, client.on_admitted, new_ticket(key), client.address))
        return session

    def resume(
        self,
        ticket: Ticket,
        hello: Hello,
        last_frame: int | None,
        claimed: ClaimedSession | None,
        client: Client,
    ) -> Session:
        """Continue a session over another connection. claimed: the session as the store has it.

        Raise UnknownTicketError, or ServerFullError; the session can be resumed later then.
        """
        self._lock.assert_held()
        entry = self.entries.get(ticket.key)
        if entry is not None and entry.ticket.matches(ticket):
            entry.send_queue.end(TakenOverError("this session continues over another connection"))
            if is_newest(entry.session, claimed):
                return self._reconnect(entry, last_frame, client)
            self.remove(entry)
        suspended, source = self.suspended_sessions.take(ticket, claimed, time.monotonic()), "memory"
        if suspended is None and claimed is not None:
            suspended, source = claimed.suspended, "store"
        if suspended is None:
            raise (claimed and claimed.error) or UnknownTicketError(UNKNOWN_TICKET)
        self._metrics.resumes.labels(source).inc()
        return self._requeue(suspended, last_frame, client)

    def receive(self, entry: SessionEntry, message: Request) -> list[ServerMessage]:
        """Apply a message of a client whose session has a slot. Return the replies. Raise a ServerError."""
        return self._table.receive(entry, message, time.monotonic())

    def lose(self, key: str, send_queue: SendQueue, *, at_once: bool = False) -> None:
        """Note that a player's connection is lost: the session waits for another one, at first in its slot. at_once:
        the player has left; the slot is held only for as long as reloading a page takes."""
        self._lock.assert_held()
        entry = self.entries.get(key)
        if entry is None or entry.send_queue is not send_queue:
            return
        send_queue.detach()
        life = entry.session.life
        if life.phase is Phase.QUEUED_SUSPENDED and entry.suspended is not None:
            life.suspend()
            self._table.remove(entry, None)
            self._put_suspended(entry.suspended)
        elif not life.has_slot or not entry.session.has_begun or not self._config.resume_s:
            self.remove(entry)
        else:
            early = max(0.0, self._config.hold_s - self._config.reload_s) if at_once else 0.0
            life.lose_connection(-NEVER if self.closed else time.monotonic() - early)
            self._lock.notify()

    def leave(self, key: str, send_queue: SendQueue) -> None:
        """Remove a session whose player has left for good; the queue moves up."""
        self._lock.assert_held()
        entry = self.entries.get(key)
        if entry is not None and entry.send_queue is send_queue:
            self.remove(entry)
            self.forget(key)

    def forget(self, key: str) -> None:
        """Delete a session from the store, so that it cannot be resumed."""
        if self.suspended_sessions.store is not None:
            self.suspended_sessions.store.drop(key)

    def remove(self, entry: SessionEntry) -> None:
        """End a session: it loses its slot or its place in the queue."""
        self._lock.assert_held()
        self._table.remove(entry, entry.session.life.end())

    def fail(self, entry: SessionEntry, error: ServerError) -> None:
        """End one session because of `error`, which its client receives; all others play on."""
        if self.has(entry):
            self.remove(entry)
            entry.send_queue.end(error)

    # ---- the model thread

    def maintain(self, now: float) -> float:
        """Drop expired sessions and those without an owner, and admit queued ones. Return when to call this again."""
        self._lock.assert_held()
        if now >= self._maintained_at + CHECK_EVERY_S:
            self._maintained_at = now
            self.suspended_sessions.drop_expired(now)
            self._metrics.frame_cost.sample(now)
        self._table.watch(now)
        if not self._table.queue.num_waiting:
            return max(self.suspended_sessions.expires_at(), now + CHECK_EVERY_S)
        self._table.admit_waiting(now)
        return now + CHECK_EVERY_S

    def suspend(self, suspended: SuspendedSession) -> None:
        """Move a session out of its slot, into memory and the store."""
        self._lock.assert_held()
        entry = self.entries[suspended.session.key]
        if not self._writes:
            return
        written = self._put_suspended(suspended)
        self._table.remove(entry, entry.session.life.suspend())
        logger.info("session %s is suspended", suspended.session.key)
        if self.closed is not None:
            end_after(written, entry.send_queue, self.closed)

    def save(self, suspended: SuspendedSession) -> None:
        """Write a session that plays on to the store."""
        self._lock.assert_held()
        store, entry = self.suspended_sessions.store, self.entries[suspended.session.key]
        if store is not None and self._writes:
            stored = suspended.to_stored(self._fingerprint(entry.session))
            store.put(stored).add_done_callback(partial(self._note_unwritten, entry, stored.generation))

    def _note_unwritten(self, entry: SessionEntry, generation: int, done: Future[Written]) -> None:
        if done.result() is not Written.DONE:
            self._on_unwritten(entry, generation, done.result())

    def unwritten(self, entry: SessionEntry, generation: int, how: Written) -> None:
        """Note that this session could not be saved as it was with `generation` here; it will be tried again.

        If it was claimed, another server has it now, or this one is about to resume it; so the session ends at the
        second note.
        """
        if self.has(entry) and entry.session.generation == generation:
            entry.saved_version = None
            entry.times_claimed += how is Written.CLAIMED
            if entry.times_claimed > 1:
                self.fail(entry, TakenOverError("this session continues at another server"))

    # ---- the end

    def close(self, error: ServerError) -> None:
        """Let nobody join any more, because of `error`."""
        self._lock.assert_held()
        self.closed = self.closed or error

    def say_goodbye(self, time_left_s: float, error: ServerError) -> None:
        """Tell every client that the server stops, and let nobody join. With a store, sessions that have begun are
        suspended and their connections closed once they are written; without one, they close at once."""
        self.close(error)
        say_goodbye(self.entries.values(), time_left_s, error, suspends=self.suspended_sessions.store is not None)
        self._lock.notify()

    def fail_all(self, error: ServerError) -> None:
        """End every session because the model failed. Nothing of theirs is written to the store from now on: what it
        has already is good."""
        self.close(error)
        self._writes = False
        for entry in self.entries.values():
            entry.send_queue.end(error)

    # ---- inside

    def _reconnect(self, entry: SessionEntry, last_frame: int | None, client: Client) -> Session:
        """Continue a session that is still in its slot or in the queue. It belongs to the new connection first of all:
        whatever fails here, the session is lost with that connection, and can be resumed again."""
        former, entry.send_queue = entry.send_queue, client.send_queue
        entry.on_admitted, entry.last_frame = client.on_admitted, last_frame
        client.send_queue.take_over(former, after=last_seen(last_frame))
        entry.session.reconnect(last_frame)
        self._metrics.resumes.labels("slot").inc()
        self._table.announce(entry)
        return entry.session

    def _requeue(self, suspended: SuspendedSession, last_frame: int | None, client: Client) -> Session:
        """Continue a session that needs a slot again."""
        session, exact = suspended.session, suspended.exact
        entry = SessionEntry(session, client.send_queue, client.on_admitted, suspended.ticket, client.address)
        entry.suspended, entry.last_frame = suspended if exact else None, last_frame
        try:
            if exact:
                session.resume(last_frame)
            else:
                session.restart(BranchRequest(branch=suspended.as_branch()), last_frame)
            self._table.add(entry)
        except BaseException:  # not even a place in the queue, or a fault: the player may try again
            if exact:  # one that is not exact is still in the store
                if session.life.allows(Event.SUSPENDED):
                    session.life.suspend()
                self._put_suspended(suspended)
            raise
        return session

    def _put_suspended(self, suspended: SuspendedSession) -> Future[Written] | None:
        if not self._writes:
            return None
        return self.suspended_sessions.put(suspended, self._fingerprint(suspended.session), time.monotonic())

    def _fingerprint(self, session: Session) -> str:
        return self._worlds.state_owner(session.world.name).fingerprint
