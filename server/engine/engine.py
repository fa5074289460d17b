"""The thread that owns the models, and what connections may ask of it. Owns the lock, the ticks and the end.

Connections (on the event loop) call `join`, `resume`, `receive`, `request_start`, `lose` and `leave`; these hold the one
lock briefly (who has joined is the `SessionRegistry`'s). The model thread loads the worlds, then repeats: let the scheduler
pick, sample the picked sessions' input at the last moment, run one batched step, hand the latents to the pipeline's
thread, do a part of an errand (a start, a fork, a session put away or back). What a model or codec raises ends every
session, since its state can no longer be trusted. Knows no sockets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from server.admission.session_entry import SessionEntry
from server.admission.session_registry import SessionRegistry
from server.config import ServerConfig
from server.engine.decode_pipeline import Pipeline, Row, Tick
from server.engine.model_runner import WorldLoader
from server.engine.scheduler import NEVER, Plan, plan
from server.engine.slot_jobs import SlotJobs
from server.engine.world_registry import WorldRegistry
from server.errors import InternalError, NotReadyError, ServerError, ShuttingDownError
from server.sessions.branches import Branch
from server.sessions.run import Run, RunRequest
from server.sessions.session import Request
from server.state.store import Store, Stored
from server.state.suspended_sessions import Ticket
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracer
from server.wire.protocol import Ack, Hello, WorldInfo
from server.wire.send_queue import SendQueue

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
        self.world_registry = WorldRegistry(config, loaders)
        self.metrics = Metrics(lambda: self.num_sessions, lambda: len(self._registry.suspended_sessions))
        self.store = None if config.store is None else Store(config.store, config.resume_s)
        self._wakeup = threading.Condition()
        self._stopping = False
        self._registry = SessionRegistry(
            config,
            self.world_registry,
            self.store,
            self.metrics,
            self._tracer,
            self._wakeup.notify,
            on_claimed=self._claimed,
        )
        self._pipeline = Pipeline(self._break, self.metrics)
        self._slot_jobs = SlotJobs(
            self.world_registry,
            self._pipeline,
            self._wakeup,
            self._registry,
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
        with self._wakeup:
            self._stopping = True
            self._registry.closed = self._registry.closed or ShuttingDownError(
                "the server is stopping; connect again later"
            )
            self._wakeup.notify_all()
        self._thread.join()
        if self.store is not None:
            self.store.close()
        self._tracer.close()

    def say_goodbye(self, time_left_s: float, error: ServerError) -> None:
        """Tell every client that the server stops, and close its connection, where there is a store once its session is
        in it; nobody joins any more."""
        with self._wakeup:
            self._registry.say_goodbye(time_left_s, error)

    @property
    def is_ready(self) -> bool:
        return self.ready.is_set() and self.failure is None and self._registry.closed is None

    @property
    def num_sessions(self) -> tuple[int, int]:
        """(playing, waiting)."""
        with self._wakeup:
            return self._registry.admission_queue.num_active, self._registry.admission_queue.num_waiting

    def backlogs(self) -> dict[str, tuple[int, int]]:
        """(bytes of frames that wait for the socket, frames dropped so far) by session."""
        with self._wakeup:
            return {
                key: (m.send_queue.num_frame_bytes, m.send_queue.num_dropped)
                for key, m in self._registry.entries.items()
            }

    def info(self, name: str) -> WorldInfo:
        """A served world. Raises NotReadyError, UnknownWorldError or why nobody may join any more."""
        self._check_open()
        if not self.is_ready:
            raise NotReadyError("the worlds are still being loaded; ask /readyz and come back")
        return self.world_registry.info(name)

    def branch(self, ticket: str, world: str) -> Branch:
        """The branch of a ticket. Raises UnknownBranchError."""
        with self._wakeup:
            return self._slot_jobs.branch(ticket, world)

    # ---- for connections

    def join(
        self, key: str, hello: Hello, start: RunRequest | None, send_queue: SendQueue, on_admitted: Callable[[], None]
    ) -> None:
        """Take a player in: `welcome` or `queued` appears in the outbox, `on_admitted` is called once there is a slot.

        Without `start` the world waits for `request_start`. Raises a ServerError.
        """
        self.info(hello.world)
        with self._wakeup:
            self._check_open()
            self._registry.join(key, hello, start, send_queue, on_admitted)

    def resume(
        self,
        ticket: Ticket,
        hello: Hello,
        last_frame: int | None,
        claimed: Stored | None,
        send_queue: SendQueue,
        on_admitted: Callable[[], None],
    ) -> WorldInfo:
        """`join` for a player of before, whose session goes on; returns its world. claimed: what the store has of it.
        Raises a ServerError."""
        with self._wakeup:
            self._check_open()
            return self._registry.resume(ticket, hello, last_frame, claimed, send_queue, on_admitted).world

    def lose(self, key: str, send_queue: SendQueue) -> None:
        """The connection of a player is gone, who may come back."""
        with self._wakeup:
            self._registry.lose(key, send_queue)

    def leave(self, key: str, send_queue: SendQueue) -> None:
        """A player has gone for good; the next in the queue moves up."""
        with self._wakeup:
            self._registry.leave(key, send_queue)

    def receive(self, key: str, message: Request) -> None:
        """A message of a playing client; ignored while it is queued. Raises a ServerError."""
        with self._wakeup:
            entry = self._registry.entries.get(key)
            if entry is None or entry.session.slot is None:
                return
            if isinstance(message, Ack):
                if (taken := entry.send_queue.last_taken) < 0:
                    return
                message = Ack(frame=min(message.frame, taken))  # no credit for what has not left
                entry.send_queue.acked(message.frame)
            entry.send_queue.put(*entry.session.receive(message, time.monotonic()))
            self._wakeup.notify()

    def request_start(self, key: str, request: RunRequest) -> None:
        """A playing client wants to start again; ignored while it is queued. Raises a ServerError."""
        with self._wakeup:
            entry = self._registry.entries.get(key)
            if entry is not None and entry.session.slot is not None:
                entry.session.request_start(request, time.monotonic())
                self._wakeup.notify()

    def run_of(self, key: str) -> Run | None:
        """A copy of what a playing client's session plays; None while it is queued."""
        with self._wakeup:
            entry = self._registry.entries.get(key)
            return None if entry is None or entry.session.slot is None else entry.session.run.copy()

    def _check_open(self) -> None:
        if self._registry.closed is not None:
            raise self._registry.closed

    def _claimed(self, entry: SessionEntry, generation: int) -> None:
        """From the store's thread."""
        with self._wakeup:
            self._registry.claimed(entry, generation)

    # ---- the model thread

    def _run(self) -> None:
        self._pipeline.start()
        try:
            self.world_registry.load(self._pipeline.call)
        except Exception as exc:  # noqa: BLE001  # whatever a loader raises, those who wait for the worlds must know
            self.failure = exc
        self.ready.set()
        try:
            while self._something_due():
                self._tick()
                self._slot_jobs.go_on()
                self.world_registry.go_on_with_previews()
        except Exception as exc:  # noqa: BLE001  # whatever a model raises, those who play must know
            self._break(exc)
        self._pipeline.stop()

    def _something_due(self) -> bool:
        """Wait until a tick or a start is due. False: the end."""
        with self._wakeup:
            while not self._stopping and self.failure is None:
                now = time.monotonic()
                wake_at = min(self._registry.look_after(now), self._plan(now).wake_at, self._slot_jobs.due_at())
                if self.world_registry.num_previews_left or wake_at <= now:
                    return True
                self._wakeup.wait(None if wake_at == NEVER else wake_at - now)
            return False

    def _plan(self, now: float) -> Plan:
        return plan((m.session.view() for m in self._registry.playing() if m.filled), now, self.config.max_batch)

    def _tick(self) -> None:
        """One batched step of what is runnable now, if anything is."""
        rows, samples = [], []
        with self._wakeup:
            now = time.monotonic()
            ticking = self._plan(now)
            by_slot = {m.session.slot: m for m in self._registry.playing()}
            for slot in ticking.slots:
                entry = by_slot[slot]
                ticket, replies = entry.session.begin_chunk(now)
                rows.append(Row(entry.session.key, slot, ticket, entry.send_queue))
                samples.append(ticket.sample)
                entry.send_queue.put(*replies)
        if ticking.world is None:
            return
        runner = self.world_registry.runner(ticking.world)
        trace = self._tracer.tick(self.num_ticks, ticking.world, [row.key for row in rows])
        with trace.part("step"):
            stepped = runner.step(samples, [row.slot for row in rows])
        self.num_ticks += 1
        self.metrics.tick_s.labels(ticking.world, len(rows)).observe(stepped.step_ms / 1e3)
        self._pipeline.put(Tick(rows, runner, stepped, trace))

    def _break(self, failure: Exception) -> None:
        """End every session, since a world broke; the log has the trace, the clients get none. From either thread."""
        logger.error("a world failed; nobody can play until the server is started again", exc_info=failure)
        error = InternalError("the world failed; the server's log says why. Connect again later")
        with self._wakeup:
            self.failure = self.failure or failure
            self._registry.end_all(error)
            self._wakeup.notify_all()
