"""Who plays, who waits, whose connection is gone: the sessions of one engine. Owns their coming and going.

Everything is called under the engine's lock, from any thread. Knows no models; what needs one is `errands`'.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from server.admission import Admitted, Lobby, Waiting
from server.config import ServerConfig
from server.errors import ServerError, TakenOverError, UnknownTicketError
from server.frames import choose_encoding
from server.hosting import Hosting
from server.member import Member
from server.metrics import Metrics
from server.outbox import Outbox
from server.parking import Parked, Parking, Ticket, is_newest, new_ticket, unpacked
from server.prediction import RECENT_S, Demand, load
from server.protocol import PROTOCOL_VERSION, GoAway, Hello, Queued, Welcome, WorldInfo
from server.runs import BranchRequest, RunRequest
from server.scheduler import NEVER
from server.session import Session
from server.store import Store, Stored, same
from server.tracing import Tracer

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
"""How often those who wait are looked at: who pauses makes room without a word."""

OnAdmitted = Callable[[], None]


class Roster:
    """`metrics`, `tracer` and `news` (somebody has come, gone or been admitted) are told of it all. on_claimed: is
    told, on the store's thread, what to call `claimed` with under the lock."""

    def __init__(
        self,
        config: ServerConfig,
        hosting: Hosting,
        store: Store | None,
        metrics: Metrics,
        tracer: Tracer,
        news: Callable[[], None],
        on_claimed: Callable[[Member, int], None],
    ) -> None:
        self._on_claimed = on_claimed
        self._config, self._hosting, self._metrics, self._news = config, hosting, metrics, news
        self._tracer = tracer
        self.members: dict[str, Member] = {}
        self.left: deque[tuple[str, int]] = deque()
        self.lobby = Lobby(config.max_sessions, config.queue_limit, self._has_time)
        self.parking = Parking(store, config.resume_s, config.max_parked)
        self.closed: ServerError | None = None  # why nobody may join any more

    def playing(self) -> list[Member]:
        return [member for member in self.members.values() if member.session.slot is not None]

    def has(self, member: Member) -> bool:
        return self.members.get(member.session.key) is member

    def join(
        self, key: str, hello: Hello, start: RunRequest | None, outbox: Outbox, on_admitted: OnAdmitted
    ) -> Session:
        """A new player. Without `start` the world waits for one. Raises a ServerError."""
        session = self._session(key, hello, self._hosting.info(hello.world))
        if start is not None:
            session.want_start(start, time.monotonic())
        self._enter(Member(session, outbox, on_admitted, new_ticket(key)))
        return session

    def resume(
        self,
        ticket: Ticket,
        hello: Hello,
        last_frame: int | None,
        claimed: Stored | None,
        outbox: Outbox,
        on_admitted: OnAdmitted,
    ) -> Session:
        """A player of before, over another connection. claimed: what the store has of it. Raises UnknownTicketError, or
        ServerFullError."""
        member = self.members.get(ticket.key)
        if member is not None and same(member.ticket.secret, ticket.secret):
            member.outbox.end(TakenOverError("this session goes on over another connection"))
            if is_newest(member.session, claimed):
                return self._come_back(member, last_frame, outbox, on_admitted)
            self.remove(member)
        parked, how = self.parking.take(ticket, claimed, time.monotonic()), "memory"
        if parked is None and claimed is not None:
            info = self._hosting.info(claimed.world)
            session = self._session(ticket.key, hello, info)
            fingerprint = self._hosting.fingerprint(info.name)
            parked, how = unpacked(claimed, session, fingerprint, time.monotonic()), "store"
        if parked is None:
            raise UnknownTicketError("no session of that ticket is kept here, or not any more; say hello without it")
        self._metrics.resumes.labels(how).inc()
        return self._go_on(parked, last_frame, outbox, on_admitted)

    def lose(self, key: str, outbox: Outbox) -> None:
        """A player's connection is gone; the session waits for another one, at first in its slot."""
        member = self.members.get(key)
        if member is None or member.outbox is not outbox:
            return
        outbox.silence()
        if member.session.slot is None or not member.session.has_begun or not self._config.resume_s:
            self.remove(member)
            if member.parked is not None:
                self.parking.put(member.parked, self._fingerprint(member), time.monotonic())
        else:
            member.session.away_since = -NEVER if self.closed else time.monotonic()
            self._news()

    def leave(self, key: str, outbox: Outbox) -> None:
        """A player has gone for good; the next in the queue moves up."""
        member = self.members.get(key)
        if member is not None and member.outbox is outbox:
            self.remove(member)
            if self.parking.store is not None:
                self.parking.store.drop(key)

    def remove(self, member: Member) -> None:
        """It has neither slot nor place any more."""
        session = member.session
        del self.members[session.key]
        self._tracer.left(session.key)
        if session.slot is not None:
            self.left.append((session.world.name, session.slot))
        self._announce(self.lobby.leave(session.key, time.monotonic()))

    def look_after(self, now: float) -> float:
        """Those who wait, and those who are parked; returns when to do it again."""
        self.parking.forget(now)
        if not self.lobby.num_waiting:
            return max(self.parking.expires_at(), now + LOOK_EVERY_S)
        self._announce(self.lobby.admit_more(now))
        return now + LOOK_EVERY_S

    def park(self, parked: Parked) -> None:
        """It has left its slot."""
        member = self.members[parked.session.key]
        future = self.parking.put(parked, self._fingerprint(member), time.monotonic())
        self.remove(member)
        logger.info("session %s is parked", parked.session.key)
        if self.closed is not None:
            _end_when(future, member.outbox, self.closed)

    def keep(self, parked: Parked) -> None:
        """It goes on; write down what it is now."""
        store, member = self.parking.store, self.members[parked.session.key]
        if store is not None:
            stored = parked.stored(self._fingerprint(member))
            future = store.put(stored)
            future.add_done_callback(lambda done: done.result() or self._on_claimed(member, stored.generation))

    def claimed(self, member: Member, generation: int) -> None:
        """Another server has had this session, it seems, since it had this generation here; or this one is about to
        resume it. If that is said twice, it is over here."""
        if self.has(member) and member.session.generation == generation:
            member.kept_as, member.times_claimed = None, member.times_claimed + 1
            if member.times_claimed > 1:
                member.outbox.end(TakenOverError("this session goes on at another server"))
                self.remove(member)

    def close(self, error: ServerError) -> None:
        """Nobody may join any more."""
        self.closed = self.closed or error

    def say_goodbye(self, time_left_s: float, error: ServerError) -> None:
        """Tell every client that the server stops; nobody joins any more. What is worth it is parked where there is a
        store; a client's connection is closed once its session is there."""
        self.close(error)
        for member in list(self.members.values()):
            member.outbox.put(GoAway(time_left_s=time_left_s, reason=str(error)))
            if self.parking.store is None or member.session.slot is None or not member.session.has_begun:
                member.outbox.end(error)
            else:
                member.session.away_since = -NEVER
        self._news()

    def end_all(self, error: ServerError) -> None:
        """Nobody can play any more."""
        self.close(error)
        for member in self.members.values():
            member.outbox.end(error)

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

    def _enter(self, member: Member) -> None:
        key = member.session.key
        self.members[key] = member
        try:
            place = self.lobby.join(key, time.monotonic())
        except ServerError:
            del self.members[key]
            raise
        self._announce([place])

    def _come_back(self, member: Member, last_frame: int | None, outbox: Outbox, on_admitted: OnAdmitted) -> Session:
        """To a session that is still in its slot, or in the queue."""
        session = member.session
        outbox.take_over(member.outbox, after=_seen(last_frame))
        member.outbox, member.on_admitted, member.last_frame = outbox, on_admitted, last_frame
        session.come_back(last_frame)
        self._metrics.resumes.labels("slot").inc()
        self._announce([self.lobby.place(session.key)])
        return session

    def _go_on(self, parked: Parked, last_frame: int | None, outbox: Outbox, on_admitted: OnAdmitted) -> Session:
        """With a session that needs a slot again."""
        session = parked.session
        session.slot = None  # the one that it had is somebody else's
        session.come_back(last_frame)
        if not parked.exact:
            session.fall_back(BranchRequest(branch=parked.as_branch()), last_frame)
        member = Member(session, outbox, on_admitted, parked.ticket, parked if parked.exact else None, last_frame)
        try:
            self._enter(member)
        except ServerError:  # no place, not even in the queue: it may try again
            if parked.exact:  # what is not is in the store still
                self.parking.put(parked, self._fingerprint(member), time.monotonic())
            raise
        return session

    def _announce(self, places: Sequence[Admitted | Waiting]) -> None:
        for place in places:
            member = self.members[place.key]
            if isinstance(place, Admitted):
                session = member.session
                session.slot, session.stepped_at = place.slot, time.monotonic()
                member.outbox.put(self._welcome(member))
                if member.parked is not None:
                    seen = _seen(member.last_frame)
                    unseen = [frame for frame in member.parked.frames if frame[0] > seen]
                    member.outbox.put_again(unseen, min(seen, session.last_index))
                member.on_admitted()
                self._metrics.admissions.labels(session.world.name).inc()
                self._tracer.admitted(place.key, session.world.name, session.generation)
                logger.info("session %s plays %s in slot %d", place.key, session.world.name, place.slot)
            else:
                member.outbox.put(Queued(position=place.position, eta_s=place.eta_s))
        self._news()

    def _welcome(self, member: Member) -> Welcome:
        session = member.session
        return Welcome(
            version=PROTOCOL_VERSION,
            session=session.key,
            resume_ticket=str(member.ticket) if self._config.resume_s else None,
            world=session.world,
            encoding=session.encoding,
            pacing=session.pacing,
            limits=self._config.limits,
            generation=session.generation,
            last_seq=session.last_seq if session.generation else None,
        )

    def _fingerprint(self, member: Member) -> str:
        return self._hosting.fingerprint(member.session.world.name)

    def _has_time(self, keys: Sequence[str]) -> bool:
        """Whether these, too, would let everybody's ticks be in time, as they were measured at the start."""
        now, headroom = time.monotonic(), self._config.headroom
        busy = [member for member in self.playing() if now - member.session.stepped_at < RECENT_S]
        sessions = [member.session for member in (*busy, *(self.members[key] for key in keys))]
        if headroom is None or len(sessions) == 1:
            return True
        demands = [Demand(session.world.name, session.period_s) for session in sessions]
        return load(demands, self._hosting.latency_s) <= headroom


def _seen(last_frame: int | None) -> int:
    """The newest frame that need not be sent again; without any on the screen, a new picture comes instead of all."""
    return 2**53 if last_frame is None else last_frame


def _end_when(future: Future[bool] | None, outbox: Outbox, error: ServerError) -> None:
    if future is None:
        outbox.end(error)
    else:
        future.add_done_callback(lambda _done: outbox.end(error))
