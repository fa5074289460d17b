"""The thread that owns the models, and what connections may ask of it. Owns sessions, slots and ticks.

Connections (on the event loop) call `join`, `receive`, `want_start` and `leave`; these hold the one lock briefly.
The model thread loads the worlds, then repeats: let the scheduler pick, sample the picked sessions' input at the last
moment, run one batched step, hand the latents to the pipeline's thread, do a part of an errand (a start, a rewind, a
fork). What a model or codec raises ends every session, since its state can no longer be trusted. Knows no sockets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from server.admission import Admitted, Lobby, Waiting
from server.branches import Branch
from server.config import ServerConfig
from server.errands import Errands
from server.errors import InternalError, NotReadyError, ServerError, ShuttingDownError
from server.frames import choose_encoding
from server.hosting import Hosting
from server.member import Member
from server.metrics import Metrics
from server.outbox import Outbox
from server.pipeline import Pipeline, Row, Tick
from server.protocol import PROTOCOL_VERSION, Ack, GoAway, Hello, Queued, Welcome, WorldInfo
from server.runs import Run, RunRequest
from server.scheduler import NEVER, Plan, plan
from server.session import Request, Session
from server.worlds import WorldLoader

logger = logging.getLogger(__name__)


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
        self._members: dict[str, Member] = {}
        self._lobby = Lobby(config.max_sessions, config.queue_limit)
        self._news = threading.Condition()
        self._stopping = False
        self._closed: ServerError | None = None  # why nobody may join any more
        self.metrics = Metrics(lambda: self.num_sessions)
        self._pipeline = Pipeline(self._break, self.metrics)
        self._errands = Errands(self.hosting, self._pipeline, self._news, self._playing)
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
            return self._errands.branch(ticket, world)

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
            self._members[key] = Member(session, outbox, on_admitted)
            self._announce([place])

    def leave(self, key: str) -> None:
        """A player has gone; the next in the queue moves up."""
        with self._news:
            if member := self._members.pop(key, None):
                self._errands.forget(member.session)
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

    def run_of(self, key: str) -> Run | None:
        """A copy of what a playing client's session plays; None while it is queued."""
        with self._news:
            member = self._members.get(key)
            return None if member is None or member.session.slot is None else member.session.run.copy()

    def _announce(self, places: Sequence[Admitted | Waiting]) -> None:
        for place in places:
            member = self._members[place.key]
            if isinstance(place, Admitted):
                member.session.slot = place.slot
                member.outbox.put(self._welcome(member.session))
                member.on_admitted()
                self.metrics.admissions.labels(member.session.world.name).inc()
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
                self._errands.go_on()
                self.hosting.go_on_with_previews()
        except Exception as exc:  # noqa: BLE001  # whatever a model raises, those who play must know
            self._break(exc)
        self._pipeline.stop()

    def _something_due(self) -> bool:
        """Wait until a tick or a start is due. False: the end."""
        with self._news:
            while not self._stopping and self.failure is None:
                now = time.monotonic()
                wake_at = min(self._plan(now).wake_at, self._errands.due_at())
                if self.hosting.num_previews_left or wake_at <= now:
                    return True
                self._news.wait(None if wake_at == NEVER else wake_at - now)
            return False

    def _playing(self) -> list[Member]:
        return [m for m in self._members.values() if m.session.slot is not None]

    def _plan(self, now: float) -> Plan:
        return plan((m.session.view() for m in self._playing()), now, self.config.max_batch)

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
        self.metrics.tick_s.labels(ticking.world, len(rows)).observe(stepped.step_ms / 1e3)
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
