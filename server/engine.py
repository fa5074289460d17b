"""The thread that owns the models, and what connections may ask of it. Owns the lock, the ticks and the end.

Connections (on the event loop) call `join`, `resume`, `receive`, `want_start`, `lose` and `leave`; these hold the one
lock briefly (who has joined is the `Roster`'s). The model thread loads the worlds, then repeats: let the scheduler
pick, sample the picked sessions' input at the last moment, run one batched step, hand the latents to the pipeline's
thread, do a part of an errand (a start, a fork, a session put away or back). What a model or codec raises ends every
session, since its state can no longer be trusted. Knows no sockets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from server.branches import Branch
from server.config import ServerConfig
from server.errands import Errands
from server.errors import InternalError, NotReadyError, ServerError, ShuttingDownError
from server.hosting import Hosting
from server.member import Member
from server.metrics import Metrics
from server.outbox import Outbox
from server.parking import Ticket
from server.pipeline import Pipeline, Row, Tick
from server.protocol import Ack, Hello, WorldInfo
from server.roster import Roster
from server.runs import Run, RunRequest
from server.scheduler import NEVER, Plan, plan
from server.session import Request
from server.store import Store, Stored
from server.tracing import Tracer
from server.worlds import WorldLoader

logger = logging.getLogger(__name__)


class Engine:
    """`loaders`: how to get each world. `ready` is set after warm-up, or once `failure` says why it never will be.

    `failure` may also come later; nobody can play from then on.
    """

    def __init__(self, config: ServerConfig, loaders: Mapping[str, WorldLoader], tracer: Tracer | None = None) -> None:
        self.config = config
        self._tracer = tracer or Tracer()
        self.ready = threading.Event()
        self.failure: Exception | None = None
        self.num_ticks = 0
        self.hosting = Hosting(config, loaders)
        self.metrics = Metrics(lambda: self.num_sessions, lambda: len(self._roster.parking))
        self.store = None if config.store is None else Store(config.store, config.resume_s)
        self._news = threading.Condition()
        self._stopping = False
        self._roster = Roster(
            config, self.hosting, self.store, self.metrics, self._tracer, self._news.notify, on_claimed=self._claimed
        )
        self._pipeline = Pipeline(self._break, self.metrics)
        self._errands = Errands(
            self.hosting,
            self._pipeline,
            self._news,
            self._roster,
            hold_s=config.hold_s,
            keeps=self.store is not None,
        )
        self._thread = threading.Thread(target=self._run, name="lightcone-model", daemon=True)

    # ---- for the application

    def start(self) -> None:
        """Begin loading; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End all threads; sessions that are left get no more frames."""
        with self._news:
            self._stopping = True
            self._roster.closed = self._roster.closed or ShuttingDownError(
                "the server is stopping; connect again later"
            )
            self._news.notify_all()
        self._thread.join()
        if self.store is not None:
            self.store.close()
        self._tracer.close()

    def say_goodbye(self, time_left_s: float, error: ServerError) -> None:
        """Tell every client that the server stops, and close its connection, where there is a store once its session is
        in it; nobody joins any more."""
        with self._news:
            self._roster.say_goodbye(time_left_s, error)

    @property
    def is_ready(self) -> bool:
        return self.ready.is_set() and self.failure is None and self._roster.closed is None

    @property
    def num_sessions(self) -> tuple[int, int]:
        """(playing, waiting)."""
        with self._news:
            return self._roster.lobby.num_active, self._roster.lobby.num_waiting

    def backlogs(self) -> dict[str, tuple[int, int]]:
        """(bytes of frames that wait for the socket, frames dropped so far) by session."""
        with self._news:
            return {key: (m.outbox.num_frame_bytes, m.outbox.num_dropped) for key, m in self._roster.members.items()}

    def info(self, name: str) -> WorldInfo:
        """A served world. Raises NotReadyError, UnknownWorldError or why nobody may join any more."""
        self._check_open()
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
        self.info(hello.world)
        with self._news:
            self._check_open()
            self._roster.join(key, hello, start, outbox, on_admitted)

    def resume(
        self,
        ticket: Ticket,
        hello: Hello,
        last_frame: int | None,
        claimed: Stored | None,
        outbox: Outbox,
        on_admitted: Callable[[], None],
    ) -> WorldInfo:
        """`join` for a player of before, whose session goes on; returns its world. claimed: what the store has of it.
        Raises a ServerError."""
        with self._news:
            self._check_open()
            return self._roster.resume(ticket, hello, last_frame, claimed, outbox, on_admitted).world

    def lose(self, key: str, outbox: Outbox) -> None:
        """The connection of a player is gone, who may come back."""
        with self._news:
            self._roster.lose(key, outbox)

    def leave(self, key: str, outbox: Outbox) -> None:
        """A player has gone for good; the next in the queue moves up."""
        with self._news:
            self._roster.leave(key, outbox)

    def receive(self, key: str, message: Request) -> None:
        """A message of a playing client; ignored while it is queued. Raises a ServerError."""
        with self._news:
            member = self._roster.members.get(key)
            if member is None or member.session.slot is None:
                return
            if isinstance(message, Ack):
                if (taken := member.outbox.last_taken) < 0:
                    return
                message = Ack(frame=min(message.frame, taken))  # no credit for what has not left
                member.outbox.acked(message.frame)
            member.outbox.put(*member.session.receive(message, time.monotonic()))
            self._news.notify()

    def want_start(self, key: str, request: RunRequest) -> None:
        """A playing client wants to start again; ignored while it is queued. Raises a ServerError."""
        with self._news:
            member = self._roster.members.get(key)
            if member is not None and member.session.slot is not None:
                member.session.want_start(request, time.monotonic())
                self._news.notify()

    def run_of(self, key: str) -> Run | None:
        """A copy of what a playing client's session plays; None while it is queued."""
        with self._news:
            member = self._roster.members.get(key)
            return None if member is None or member.session.slot is None else member.session.run.copy()

    def _check_open(self) -> None:
        if self._roster.closed is not None:
            raise self._roster.closed

    def _claimed(self, member: Member, generation: int) -> None:
        """From the store's thread."""
        with self._news:
            self._roster.claimed(member, generation)

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
                wake_at = min(self._roster.look_after(now), self._plan(now).wake_at, self._errands.due_at())
                if self.hosting.num_previews_left or wake_at <= now:
                    return True
                self._news.wait(None if wake_at == NEVER else wake_at - now)
            return False

    def _plan(self, now: float) -> Plan:
        return plan((m.session.view() for m in self._roster.playing() if m.filled), now, self.config.max_batch)

    def _tick(self) -> None:
        """One batched step of what is runnable now, if anything is."""
        rows, samples = [], []
        with self._news:
            now = time.monotonic()
            ticking = self._plan(now)
            by_slot = {m.session.slot: m for m in self._roster.playing()}
            for slot in ticking.slots:
                member = by_slot[slot]
                ticket, replies = member.session.begin_chunk(now)
                rows.append(Row(member.session.key, slot, ticket, member.outbox))
                samples.append(ticket.sample)
                member.outbox.put(*replies)
        if ticking.world is None:
            return
        host = self.hosting.host(ticking.world)
        trace = self._tracer.tick(self.num_ticks, ticking.world, [row.key for row in rows])
        with trace.part("step"):
            stepped = host.step(samples, [row.slot for row in rows])
        self.num_ticks += 1
        self.metrics.tick_s.labels(ticking.world, len(rows)).observe(stepped.step_ms / 1e3)
        self._pipeline.put(Tick(rows, host, stepped, trace))

    def _break(self, failure: Exception) -> None:
        """End every session, since a world broke; the log has the trace, the clients get none. From either thread."""
        logger.error("a world failed; nobody can play until the server is started again", exc_info=failure)
        error = InternalError("the world failed; the server's log says why. Connect again later")
        with self._news:
            self.failure = self.failure or failure
            self._roster.end_all(error)
            self._news.notify_all()
