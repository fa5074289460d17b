"""The thread that owns the models, and what connections may ask of it. Owns sessions, slots and ticks.

Connections (on the event loop) call `join`, `receive`, `want_start` and `leave`; these hold the one lock briefly.
The model thread loads the worlds, then repeats: let the scheduler pick, sample the picked sessions' input at the last
moment, run one batched step, hand the latents to the pipeline's thread, carry out at most one start and one fork. What
a model or codec raises ends every session, since its state can no longer be trusted. Knows no sockets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from server.admission import Admitted, Lobby, Waiting
from server.branches import LIFETIME_S, Branch, Branches
from server.config import ServerConfig
from server.errors import InternalError, NotReadyError, ServerError, ShuttingDownError
from server.frames import choose_encoding
from server.hosting import Hosting
from server.log import session_key
from server.outbox import Outbox
from server.pipeline import Pipeline, Row, Tick
from server.protocol import PROTOCOL_VERSION, Ack, Forked, GoAway, Hello, Queued, Welcome, WorldInfo
from server.runs import RunRequest
from server.scheduler import NEVER, Plan, plan
from server.session import Request, Session
from server.worlds import WorldLoader

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Member:
    session: Session
    outbox: Outbox
    on_admitted: Callable[[], None]


class Engine:
    """`loaders`: how to get each world. `ready` is set after warm-up, or once `failure` says why it never will be.

    `failure` may also come later; nobody can play from then on.
    """

    def __init__(self, config: ServerConfig, loaders: Mapping[str, WorldLoader]) -> None:
        self.config = config
        self.ready = threading.Event()
        self.failure: Exception | None = None
        self.num_ticks = 0
        self.hosting = Hosting(config, loaders)
        self._branches = Branches()
        self._members: dict[str, _Member] = {}
        self._lobby = Lobby(config.max_sessions, config.queue_limit)
        self._news = threading.Condition()
        self._stopping = False
        self._closed: ServerError | None = None  # why nobody may join any more
        self._pipeline = Pipeline(self._break)
        self._thread = threading.Thread(target=self._run, name="lightcone-model", daemon=True)

    # ---- for the application

    def start(self) -> None:
        """Begin loading; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End both threads; sessions that are left get no more frames."""
        with self._news:
            self._stopping = True
            self._closed = self._closed or ShuttingDownError("the server is stopping; connect again later")
            self._news.notify_all()
        self._thread.join()

    def say_goodbye(self, time_left_s: float, error: ServerError) -> None:
        """Tell every client that the server stops, and close its connection; nobody joins any more."""
        with self._news:
            self._closed = self._closed or error
            for member in self._members.values():
                member.outbox.put(GoAway(time_left_s=time_left_s, reason=str(error)))
                member.outbox.end(error)

    @property
    def is_ready(self) -> bool:
        return self.ready.is_set() and self.failure is None and self._closed is None

    @property
    def num_sessions(self) -> tuple[int, int]:
        """(playing, waiting)."""
        with self._news:
            return self._lobby.num_active, self._lobby.num_waiting

    def backlogs(self) -> dict[str, tuple[int, int]]:
        """(bytes of frames that wait for the socket, frames dropped so far) by session."""
        with self._news:
            return {key: (m.outbox.num_frame_bytes, m.outbox.num_dropped) for key, m in self._members.items()}

    def info(self, name: str) -> WorldInfo:
        """A served world. Raises NotReadyError, UnknownWorldError or why nobody may join any more."""
        if self._closed is not None:
            raise self._closed
        if not self.is_ready:
            raise NotReadyError("the worlds are still being loaded; ask /readyz and come back")
        return self.hosting.info(name)

    def branch(self, ticket: str, world: str) -> Branch:
        """The branch of a ticket. Raises UnknownBranchError."""
        with self._news:
            return self._branches.get(ticket, world, time.monotonic())

    # ---- for connections

    def join(
        self, key: str, hello: Hello, start: RunRequest | None, outbox: Outbox, on_admitted: Callable[[], None]
    ) -> None:
        """Take a player in: `welcome` or `queued` appears in the outbox, `on_admitted` is called once there is a slot.

        Without `start` the world waits for `want_start`. Raises a ServerError.
        """
        world = self.info(hello.world)
        session = Session(
            key,
            world,
            world.chunk_frames,
            encoding=choose_encoding(hello.encodings),
            jpeg_quality=self.config.jpeg_quality,
            pacing=hello.pacing,
            receipts=hello.receipts,
            max_unacked=self.config.max_unacked_chunks,
            max_pending_acts=self.config.max_pending_acts,
            timeline_frames=self.config.timeline_frames,
        )
        if start is not None:
            session.want_start(start, time.monotonic())
        with self._news:
            if self._closed is not None:
                raise self._closed
            place = self._lobby.join(key, time.monotonic())
            self._members[key] = _Member(session, outbox, on_admitted)
            self._announce([place])

    def leave(self, key: str) -> None:
        """A player has gone; the next in the queue moves up."""
        with self._news:
            if self._members.pop(key, None):
                self._announce(self._lobby.leave(key, time.monotonic()))

    def receive(self, key: str, message: Request) -> None:
        """A message of a playing client; ignored while it is queued. Raises a ServerError."""
        with self._news:
            member = self._members.get(key)
            if member is None or member.session.slot is None:
                return
            if isinstance(message, Ack) and message.frame > (taken := member.outbox.last_taken):
                if taken < 0:
                    return
                message = Ack(frame=taken)  # no credit for what has not left
            member.outbox.put(*member.session.receive(message, time.monotonic()))
            self._news.notify()

    def want_start(self, key: str, request: RunRequest) -> None:
        """A playing client wants to start again; ignored while it is queued. Raises a ServerError."""
        with self._news:
            member = self._members.get(key)
            if member is not None and member.session.slot is not None:
                member.session.want_start(request, time.monotonic())
                self._news.notify()

    def _announce(self, places: Sequence[Admitted | Waiting]) -> None:
        for place in places:
            member = self._members[place.key]
            if isinstance(place, Admitted):
                member.session.slot = place.slot
                member.outbox.put(self._welcome(member.session))
                member.on_admitted()
                logger.info("session %s plays %s in slot %d", place.key, member.session.world.name, place.slot)
            else:
                member.outbox.put(Queued(position=place.position, eta_s=place.eta_s))
        self._news.notify()

    def _welcome(self, session: Session) -> Welcome:
        return Welcome(
            version=PROTOCOL_VERSION,
            session=session.key,
            resume_ticket=None,
            world=session.world,
            encoding=session.encoding,
            pacing=session.pacing,
            limits=self.config.limits,
        )

    # ---- the model thread

    def _run(self) -> None:
        self._pipeline.start()
        try:
            self.hosting.load(self._pipeline.call)
        except Exception as exc:  # noqa: BLE001  # whatever a loader raises, those who wait for the worlds must know
            self.failure = exc
        self.ready.set()
        try:
            while self._something_due():
                self._tick()
                self._begin_run()
                self._make_branch()
                self.hosting.go_on_with_previews()
        except Exception as exc:  # noqa: BLE001  # whatever a model raises, those who play must know
            self._break(exc)
        self._pipeline.stop()

    def _something_due(self) -> bool:
        """Wait until a tick or a start is due. False: the end."""
        with self._news:
            while not self._stopping and self.failure is None:
                now = time.monotonic()
                asked = (min(m.session.start_at(), m.session.fork_at()) for m in self._playing())
                wake_at = min(self._plan(now).wake_at, *asked, NEVER)
                if self.hosting.num_previews_left or wake_at <= now:
                    return True
                self._news.wait(None if wake_at == NEVER else wake_at - now)
            return False

    def _playing(self) -> list[_Member]:
        return [m for m in self._members.values() if m.session.slot is not None]

    def _plan(self, now: float) -> Plan:
        return plan((m.session.view() for m in self._playing()), now, self.config.max_batch)

    def _begin_run(self) -> None:
        """Carry out the start that has waited longest, if one is due: fill its session's slot.

        The first picture goes out as a frame of kind "start", in place of frames that have not left yet.
        """
        with self._news:
            now = time.monotonic()
            member = min(self._playing(), key=lambda m: m.session.start_at(), default=None)
            request = member.session.due_start(now) if member else None
            if member is None or request is None:
                return
            session = member.session
            ticket, replies = session.begin_run(now)
        assert session.slot is not None
        session_key.set(session.key)
        self._pipeline.wait_for(session.slot)  # the codec's state of this slot must not be in use
        picture = self.hosting.host(session.world.name).begin(session.slot, request)
        member.outbox.put(*replies)
        self._pipeline.put(Tick([Row(session.key, session.slot, ticket, member.outbox)], None, picture[None, None]))
        session_key.set("-")

    def _make_branch(self) -> None:
        """Carry out one fork, if one is wanted: keep the session's state and send the ticket to it."""
        with self._news:
            now = time.monotonic()
            if not (member := next((m for m in self._playing() if m.session.fork_at() <= now), None)):
                return
            session = member.session
            seq, run_frame, refusals = session.begin_fork(now)
            member.outbox.put(*refusals)
            if refusals:
                return
        assert session.slot is not None
        self._pipeline.wait_for(session.slot)
        state = self.hosting.host(session.world.name).fork(session.slot, run_frame)
        with self._news:
            ticket = self._branches.put(session.run.branch(state, run_frame), now)
            receipts = session.control_applied(seq)
        member.outbox.put(Forked(seq=seq, ticket=ticket, run_frame=run_frame, expires_s=LIFETIME_S), *receipts)

    def _tick(self) -> None:
        """One batched step of what is runnable now, if anything is."""
        rows, samples = [], []
        with self._news:
            now = time.monotonic()
            ticking = self._plan(now)
            by_slot = {m.session.slot: m for m in self._members.values()}
            for slot in ticking.slots:
                member = by_slot[slot]
                ticket, replies = member.session.begin_chunk(now)
                rows.append(Row(member.session.key, slot, ticket, member.outbox))
                samples.append(ticket.sample)
                member.outbox.put(*replies)
        if ticking.world is None:
            return
        host = self.hosting.host(ticking.world)
        stepped = host.step(samples, [row.slot for row in rows])
        self.num_ticks += 1
        self._pipeline.put(Tick(rows, host, stepped))

    def _break(self, failure: Exception) -> None:
        """End every session, since a world broke; the log has the trace, the clients get none. From either thread."""
        logger.error("a world failed; nobody can play until the server is started again", exc_info=failure)
        error = InternalError("the world failed; the server's log says why. Connect again later")
        with self._news:
            self.failure = self.failure or failure
            self._closed = self._closed or error
            for member in self._members.values():
                member.outbox.end(error)
            self._news.notify_all()
