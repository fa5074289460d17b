"""Who plays, who waits, whose connection is gone: the sessions of one engine. Owns their coming and going.

Everything is called under the engine's lock, from any thread. Knows no models; what needs one is `slot_jobs`'.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from server.admission.admission_queue import AdmissionQueue, Admitted, Waiting
from server.admission.capacity import RECENT_S, Demand, load
from server.admission.session_entry import SessionEntry
from server.config import ServerConfig
from server.engine.scheduler import NEVER
from server.engine.world_registry import WorldRegistry
from server.errors import ServerError, TakenOverError, UnknownTicketError
from server.sessions.run import BranchRequest, RunRequest
from server.sessions.session import Session
from server.state.store import Store, Stored, same
from server.state.suspended_sessions import SuspendedSession, SuspendedSessions, Ticket, is_newest, new_ticket, unpacked
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracer
from server.wire.frames import choose_encoding
from server.wire.protocol import PROTOCOL_VERSION, GoAway, Hello, Queued, Welcome, WorldInfo
from server.wire.send_queue import SendQueue

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
"""How often those who wait are looked at: who pauses makes room without a word."""

OnAdmitted = Callable[[], None]


class SessionRegistry:
    """`metrics`, `tracer` and `wakeup` (somebody has come, gone or been admitted) are told of it all. on_claimed: is
    told, on the store's thread, what to call `claimed` with under the lock."""

    def __init__(
        self,
        config: ServerConfig,
        world_registry: WorldRegistry,
        store: Store | None,
        metrics: Metrics,
        tracer: Tracer,
        wakeup: Callable[[], None],
        on_claimed: Callable[[SessionEntry, int], None],
    ) -> None:
        self._on_claimed = on_claimed
        self._config, self._world_registry, self._metrics, self._wakeup = config, world_registry, metrics, wakeup
        self._tracer = tracer
        self.entries: dict[str, SessionEntry] = {}
        self.left: deque[tuple[str, int]] = deque()
        self.admission_queue = AdmissionQueue(config.max_sessions, config.queue_limit, self._has_time)
        self.suspended_sessions = SuspendedSessions(store, config.resume_s, config.max_suspended)
        self.closed: ServerError | None = None  # why nobody may join any more

    def playing(self) -> list[SessionEntry]:
        return [entry for entry in self.entries.values() if entry.session.slot is not None]

    def has(self, entry: SessionEntry) -> bool:
        return self.entries.get(entry.session.key) is entry

    def join(
        self, key: str, hello: Hello, start: RunRequest | None, send_queue: SendQueue, on_admitted: OnAdmitted
    ) -> Session:
        """A new player. Without `start` the world waits for one. Raises a ServerError."""
        session = self._session(key, hello, self._world_registry.info(hello.world))
        if start is not None:
            session.request_start(start, time.monotonic())
        self._enter(SessionEntry(session, send_queue, on_admitted, new_ticket(key)))
        return session

    def resume(
        self,
        ticket: Ticket,
        hello: Hello,
        last_frame: int | None,
        claimed: Stored | None,
        send_queue: SendQueue,
        on_admitted: OnAdmitted,
    ) -> Session:
        """A player of before, over another connection. claimed: what the store has of it. Raises UnknownTicketError, or
        ServerFullError."""
        entry = self.entries.get(ticket.key)
        if entry is not None and same(entry.ticket.secret, ticket.secret):
            entry.send_queue.end(TakenOverError("this session goes on over another connection"))
            if is_newest(entry.session, claimed):
                return self._come_back(entry, last_frame, send_queue, on_admitted)
            self.remove(entry)
        suspended, how = self.suspended_sessions.take(ticket, claimed, time.monotonic()), "memory"
        if suspended is None and claimed is not None:
            info = self._world_registry.info(claimed.world)
            session = self._session(ticket.key, hello, info)
            fingerprint = self._world_registry.fingerprint(info.name)
            suspended, how = unpacked(claimed, session, fingerprint, time.monotonic()), "store"
        if suspended is None:
            raise UnknownTicketError("no session of that ticket is kept here, or not any more; say hello without it")
        self._metrics.resumes.labels(how).inc()
        return self._go_on(suspended, last_frame, send_queue, on_admitted)

    def lose(self, key: str, send_queue: SendQueue) -> None:
        """A player's connection is gone; the session waits for another one, at first in its slot."""
        entry = self.entries.get(key)
        if entry is None or entry.send_queue is not send_queue:
            return
        send_queue.silence()
        if entry.session.slot is None or not entry.session.has_begun or not self._config.resume_s:
            self.remove(entry)
            if entry.suspended is not None:
                self.suspended_sessions.put(entry.suspended, self._fingerprint(entry), time.monotonic())
        else:
            entry.session.away_since = -NEVER if self.closed else time.monotonic()
            self._wakeup()

    def leave(self, key: str, send_queue: SendQueue) -> None:
        """A player has gone for good; the next in the queue moves up."""
        entry = self.entries.get(key)
        if entry is not None and entry.send_queue is send_queue:
            self.remove(entry)
            if self.suspended_sessions.store is not None:
                self.suspended_sessions.store.drop(key)

    def remove(self, entry: SessionEntry) -> None:
        """It has neither slot nor place any more."""
        session = entry.session
        del self.entries[session.key]
        self._tracer.left(session.key)
        if session.slot is not None:
            self.left.append((session.world.name, session.slot))
        self._announce(self.admission_queue.leave(session.key, time.monotonic()))

    def look_after(self, now: float) -> float:
        """Those who wait, and those who are parked; returns when to do it again."""
        self.suspended_sessions.forget(now)
        if not self.admission_queue.num_waiting:
            return max(self.suspended_sessions.expires_at(), now + LOOK_EVERY_S)
        self._announce(self.admission_queue.admit_more(now))
        return now + LOOK_EVERY_S

    def suspend(self, suspended: SuspendedSession) -> None:
        """It has left its slot."""
        entry = self.entries[suspended.session.key]
        future = self.suspended_sessions.put(suspended, self._fingerprint(entry), time.monotonic())
        self.remove(entry)
        logger.info("session %s is parked", suspended.session.key)
        if self.closed is not None:
            _end_when(future, entry.send_queue, self.closed)

    def keep(self, suspended: SuspendedSession) -> None:
        """It goes on; write down what it is now."""
        store, entry = self.suspended_sessions.store, self.entries[suspended.session.key]
        if store is not None:
            stored = suspended.stored(self._fingerprint(entry))
            future = store.put(stored)
            future.add_done_callback(lambda done: done.result() or self._on_claimed(entry, stored.generation))

    def claimed(self, entry: SessionEntry, generation: int) -> None:
        """Another server has had this session, it seems, since it had this generation here; or this one is about to
        resume it. If that is said twice, it is over here."""
        if self.has(entry) and entry.session.generation == generation:
            entry.kept_as, entry.times_claimed = None, entry.times_claimed + 1
            if entry.times_claimed > 1:
                entry.send_queue.end(TakenOverError("this session goes on at another server"))
                self.remove(entry)

    def close(self, error: ServerError) -> None:
        """Nobody may join any more."""
        self.closed = self.closed or error

    def say_goodbye(self, time_left_s: float, error: ServerError) -> None:
        """Tell every client that the server stops; nobody joins any more. What is worth it is parked where there is a
        store; a client's connection is closed once its session is there."""
        self.close(error)
        for entry in list(self.entries.values()):
            entry.send_queue.put(GoAway(time_left_s=time_left_s, reason=str(error)))
            if self.suspended_sessions.store is None or entry.session.slot is None or not entry.session.has_begun:
                entry.send_queue.end(error)
            else:
                entry.session.away_since = -NEVER
        self._wakeup()

    def end_all(self, error: ServerError) -> None:
        """Nobody can play any more."""
        self.close(error)
        for entry in self.entries.values():
            entry.send_queue.end(error)

    def _session(self, key: str, hello: Hello, world: WorldInfo) -> Session:
        return Session(
            key,
            world,
            world.chunk_frames,
            encoding=choose_encoding(hello.encodings),
            jpeg_quality=self._config.jpeg_quality,
            pacing=hello.pacing,
            receipts=hello.receipts,
            max_unacked=self._config.max_unacked_chunks,
            max_pending_acts=self._config.max_pending_acts,
            timeline_frames=self._config.timeline_frames,
        )

    def _enter(self, entry: SessionEntry) -> None:
        key = entry.session.key
        self.entries[key] = entry
        try:
            place = self.admission_queue.join(key, time.monotonic())
        except ServerError:
            del self.entries[key]
            raise
        self._announce([place])

    def _come_back(
        self, entry: SessionEntry, last_frame: int | None, send_queue: SendQueue, on_admitted: OnAdmitted
    ) -> Session:
        """To a session that is still in its slot, or in the queue."""
        session = entry.session
        send_queue.take_over(entry.send_queue, after=_seen(last_frame))
        entry.send_queue, entry.on_admitted, entry.last_frame = send_queue, on_admitted, last_frame
        session.come_back(last_frame)
        self._metrics.resumes.labels("slot").inc()
        self._announce([self.admission_queue.place(session.key)])
        return session

    def _go_on(
        self, suspended: SuspendedSession, last_frame: int | None, send_queue: SendQueue, on_admitted: OnAdmitted
    ) -> Session:
        """With a session that needs a slot again."""
        session = suspended.session
        session.slot = None  # the one that it had is somebody else's
        session.come_back(last_frame)
        if not suspended.exact:
            session.fall_back(BranchRequest(branch=suspended.as_branch()), last_frame)
        entry = SessionEntry(
            session, send_queue, on_admitted, suspended.ticket, suspended if suspended.exact else None, last_frame
        )
        try:
            self._enter(entry)
        except ServerError:  # no place, not even in the queue: it may try again
            if suspended.exact:  # what is not is in the store still
                self.suspended_sessions.put(suspended, self._fingerprint(entry), time.monotonic())
            raise
        return session

    def _announce(self, places: Sequence[Admitted | Waiting]) -> None:
        for place in places:
            entry = self.entries[place.key]
            if isinstance(place, Admitted):
                session = entry.session
                session.slot, session.stepped_at = place.slot, time.monotonic()
                entry.send_queue.put(self._welcome(entry))
                if entry.suspended is not None:
                    seen = _seen(entry.last_frame)
                    unseen = [frame for frame in entry.suspended.frames if frame[0] > seen]
                    entry.send_queue.put_again(unseen, min(seen, session.last_index))
                entry.on_admitted()
                self._metrics.admissions.labels(session.world.name).inc()
                self._tracer.admitted(place.key, session.world.name, session.generation)
                logger.info("session %s plays %s in slot %d", place.key, session.world.name, place.slot)
            else:
                entry.send_queue.put(Queued(position=place.position, eta_s=place.eta_s))
        self._wakeup()

    def _welcome(self, entry: SessionEntry) -> Welcome:
        session = entry.session
        return Welcome(
            version=PROTOCOL_VERSION,
            session=session.key,
            resume_ticket=str(entry.ticket) if self._config.resume_s else None,
            world=session.world,
            encoding=session.encoding,
            pacing=session.pacing,
            limits=self._config.limits,
            generation=session.generation,
            last_seq=session.last_seq if session.generation else None,
        )

    def _fingerprint(self, entry: SessionEntry) -> str:
        return self._world_registry.fingerprint(entry.session.world.name)

    def _has_time(self, keys: Sequence[str]) -> bool:
        """Whether these, too, would let everybody's ticks be in time, as they were measured at the start."""
        now, headroom = time.monotonic(), self._config.headroom
        busy = [entry for entry in self.playing() if now - entry.session.stepped_at < RECENT_S]
        sessions = [entry.session for entry in (*busy, *(self.entries[key] for key in keys))]
        if headroom is None or len(sessions) == 1:
            return True
        demands = [Demand(session.world.name, session.period_s) for session in sessions]
        return load(demands, self._world_registry.latency_s) <= headroom


def _seen(last_frame: int | None) -> int:
    """The newest frame that need not be sent again; without any on the screen, a new picture comes instead of all."""
    return 2**53 if last_frame is None else last_frame


def _end_when(future: Future[bool] | None, send_queue: SendQueue, error: ServerError) -> None:
    if future is None:
        send_queue.end(error)
    else:
        future.add_done_callback(lambda _done: send_queue.end(error))
