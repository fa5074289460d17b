"""The thread that owns the models, and what connections may ask of it. Owns the lock, the ticks and the end.

Connections (on the event loop) call `join`, `resume`, `receive`, `request_start`, `lose` and `leave`, which hold the
lock briefly; the sessions themselves are the `SessionRegistry`'s. The model thread loads the worlds and then repeats:
let the scheduler pick sessions, sample their input at the last moment, run one batched step, pass the latents to the
decode thread, do one part of a slot job. An exception of a model or codec in a step or in decoding, or slot jobs that
fail one after the other, end every session, because no state can be trusted any more; the process should end then, and
nothing more is written to the store. Knows no sockets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from server.admission.session_entry import Client, SessionEntry
from server.admission.session_factory import read_stored
from server.admission.session_registry import SessionRegistry
from server.config import ServerConfig
from server.engine.decode_pipeline import DecodePipeline
from server.engine.live_compilation import LiveCompilation
from server.engine.model_runner import WorldLoader
from server.engine.slot_jobs import SlotJobs
from server.engine.ticks import Ticks
from server.engine.world_registry import WorldRegistry
from server.errors import InternalError, ModelFailedError, NotReadyError, ServerError, ShuttingDownError
from server.sessions.branches import Branch
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from server.sessions.run import Run, RunRequest
from server.sessions.session import Request
from server.state.store import Store, StoredSession, Written
from server.state.stored_session import ClaimedSession
from server.state.tickets import Ticket
from server.telemetry.metrics import Metrics, SessionCounts
from server.telemetry.tracing import Tracer
from server.wire.protocol import Ack, Hello, WorldInfo
from server.wire.send_queue import SendQueue

logger = logging.getLogger(__name__)


class Engine:
    """The worlds of one process and everybody who plays in them. loaders: one per world.

    `ready` is set after warm-up, or once `failure` says why there will be none. `failure` may also come later, when a
    model fails in play; `failed_world` names the world then, and nobody can play until the process is started again.
    """

    def __init__(self, config: ServerConfig, loaders: Mapping[str, WorldLoader], tracer: Tracer | None = None) -> None:
        self.config = config
        self._tracer = tracer or Tracer()
        self.ready = threading.Event()
        self.failure: Exception | None = None
        self.failed_world: str | None = None
        self.world_registry = WorldRegistry(config, loaders)
        self.metrics = Metrics(self.counts, self.world_registry)
        self.store = None if config.store is None else Store(config.store, config.resume_s, config.store_bytes)
        if (store := self.store) is not None:
            self.metrics.watch_store(lambda: store.num_failures)
        self._lock = EngineLock()
        self._is_stopping = False
        self._registry = SessionRegistry(
            config,
            self.world_registry,
            self.store,
            self.metrics,
            self._tracer,
            self._lock,
            on_unwritten=self._unwritten,
        )
        self._pipeline = DecodePipeline(self._fail, self.metrics)
        shared = (self.world_registry, self._pipeline, self._lock, self._registry)
        self._ticks = Ticks(*shared, metrics=self.metrics, tracer=self._tracer, max_batch=config.max_batch)
        self._slot_jobs = SlotJobs(
            *shared, hold_s=config.hold_s, saves=self.store is not None, branch_bytes=config.branch_bytes
        )
        self.compilation = LiveCompilation(config, self.world_registry, self._registry, self._lock, self._pipeline.call)
        self.metrics.watch_compilation(lambda: self.compilation.num_parts_left)
        self._thread = threading.Thread(target=self._run, name="lightcone-model", daemon=True)

    # ---- for the application

    def start(self) -> None:
        """Begin to load the worlds; return at once. Called on the event loop."""
        self.metrics.frame_cost.watch()
        self._thread.start()

    def stop(self) -> None:
        """End all threads. Remaining sessions get no more frames."""
        with self._lock:
            self._is_stopping = True
            self._registry.close(ShuttingDownError("the server is stopping; connect again later"))
            self._lock.notify_all()
        self._thread.join()
        self.compilation.stop()
        if self.store is not None:
            self.store.close()
        self._tracer.close()

    def say_goodbye(self, time_left_s: float, error: ServerError) -> None:
        """Tell every client that the server stops, and let nobody join. With a store, each connection is closed once
        its session is written."""
        with self._lock:
            self._registry.say_goodbye(time_left_s, error)

    @property
    def is_ready(self) -> bool:
        return self.ready.is_set() and self.failure is None and self._registry.closed is None

    @property
    def is_healthy(self) -> bool:
        """Return whether there is no failure that only a new process can mend."""
        return self.failure is None and (self._is_stopping or self._thread.is_alive())

    @property
    def num_ticks(self) -> int:
        return self._ticks.number

    @property
    def num_sessions(self) -> tuple[int, int]:
        """Return how many sessions have a slot, and how many are queued."""
        return self.counts()[:2]

    def counts(self) -> SessionCounts:
        with self._lock:
            return self._registry.counts()

    def backlogs(self) -> dict[str, tuple[int, int]]:
        """Return (bytes of frames that wait for the socket, frames dropped so far) by session."""
        with self._lock:
            queues = {key: entry.send_queue for key, entry in self._registry.entries.items()}
            return {key: (queue.num_frame_bytes, queue.num_dropped) for key, queue in queues.items()}

    def info(self, name: str, *, resuming: bool = False) -> WorldInfo:
        """Return a served world. Raise NotReadyError, UnknownWorldError, or the reason why nobody may join any more.

        resuming: for a session that another process may continue, this one's failure is a reason to try again later.
        """
        self._check_open(resuming=resuming)
        if not self.is_ready:
            raise NotReadyError("the worlds are still loading; connect again once /readyz says ready")
        return self.world_registry.info(name)

    def branch(self, ticket: str, world: str) -> Branch:
        """Return the branch of a ticket. Raise UnknownBranchError."""
        with self._lock:
            return self._slot_jobs.branch(ticket, world)

    # ---- for connections

    def join(self, key: str, hello: Hello, start: RunRequest | None, client: Client) -> None:
        """Add a player's session: `welcome` or `queued` is put into the client's send queue. Without `start` the world
        waits for `request_start`. Raise a ServerError."""
        self.info(hello.world)
        with self._lock:
            self._check_open()
            self._registry.join(key, hello, start, client)

    def resume(
        self,
        ticket: Ticket,
        hello: Hello,
        last_frame: int | None,
        claimed: ClaimedSession | None,
        client: Client,
    ) -> WorldInfo:
        """Continue a player's earlier session over another connection. Return its world. claimed: what the store has of
        it, from `read_stored`. Raise a ServerError."""
        with self._lock:
            self._check_open(resuming=True)
            return self._registry.resume(ticket, hello, last_frame, claimed, client).world

    def read_stored(self, stored: StoredSession, hello: Hello, address: str) -> ClaimedSession:
        """Read a session that was claimed in the store, for `resume`. Call it on a thread that nobody waits for."""
        registry = self.world_registry
        try:
            world, owner = registry.info(stored.world), registry.state_owner(stored.world)
        except ServerError as error:
            return ClaimedSession(stored.generation, error=error)
        return read_stored(stored, hello, world, owner, self.config, address)

    def lose(self, key: str, send_queue: SendQueue, *, at_once: bool = False) -> None:
        """Note that a player's connection is lost; the player may resume. at_once: free its slot now, not later."""
        with self._lock:
            self._registry.lose(key, send_queue, at_once=at_once)

    def leave(self, key: str, send_queue: SendQueue) -> None:
        """Remove a player's session for good; the queue moves up."""
        with self._lock:
            self._registry.leave(key, send_queue)

    def receive(self, key: str, message: Request) -> None:
        """Apply a client's message; it is ignored while the session is queued. Raise a ServerError."""
        with self._lock:
            entry = self._with_slot(key)
            if entry is None:
                return
            if isinstance(message, Ack):
                if (taken := entry.send_queue.last_taken) < 0:
                    return
                message = Ack(frame=min(message.frame, taken))  # an ack counts only for frames that have left
                entry.send_queue.acknowledge(message.frame)
            entry.send_queue.put(*self._registry.receive(entry, message))
            self._lock.notify()

    def request_start(self, key: str, request: RunRequest) -> None:
        """Start again as a client requests; ignored while the session is queued. Raise a ServerError."""
        with self._lock:
            if (entry := self._with_slot(key)) is not None:
                entry.session.request_start(request, time.monotonic())
                self._lock.notify()

    def run_of(self, key: str) -> Run | None:
        """Return a copy of the run that a client plays; None while its session is queued."""
        with self._lock:
            entry = self._with_slot(key)
            return None if entry is None else entry.session.run.copy()

    def _with_slot(self, key: str) -> SessionEntry | None:
        entry = self._registry.entries.get(key)
        return entry if entry is not None and entry.session.life.has_slot else None

    def _check_open(self, *, resuming: bool = False) -> None:
        if self._registry.closed is not None:
            if resuming and self.failure is not None:
                raise ShuttingDownError("a world failed and this server stops; resume once it is started again")
            raise self._registry.closed

    def _unwritten(self, entry: SessionEntry, generation: int, how: Written) -> None:
        """Pass on that a session could not be saved; called on the store's thread."""
        with self._lock:
            self._registry.unwritten(entry, generation, how)

    # ---- the model thread

    def _run(self) -> None:
        self._pipeline.start()
        try:
            self.world_registry.load(self._pipeline.call, self._try_decode, lambda: self._is_stopping)
            if not self._is_stopping:
                self.compilation.begin()
        except Exception as exc:  # noqa: BLE001  # whatever a loader raises, those who wait for the worlds must know
            self.failure = exc
        self.ready.set()
        try:
            while self._wait_for_work():
                if self._ticks.run():
                    self._slot_jobs.note_success()
                self._slot_jobs.advance()
                previews = self.world_registry.previews
                self._slot_jobs.in_spare_time(previews.advance, previews.due_at)
                self._slot_jobs.in_spare_time(self.compilation.advance, self.compilation.due_at)
        except ModelFailedError as failed:
            cause = failed.__cause__
            self._fail(cause if isinstance(cause, Exception) else failed, failed.world)
        except Exception as exc:  # noqa: BLE001  # whatever is raised, all sessions must end
            self._fail(exc, "a world")
        self._pipeline.stop()

    def _try_decode(self, work: Callable[[], Any]) -> Future[Any] | None:
        """Have the decode thread do this if it has nothing else to do, and wake the model thread then."""
        if (future := self._pipeline.try_call(work)) is not None:
            future.add_done_callback(self._wake)
        return future

    def _wake(self, _done: object) -> None:
        with self._lock:
            self._lock.notify()

    def _wait_for_work(self) -> bool:
        """Wait until a tick, a slot job or a preview is due. Return False at the end."""
        with self._lock:
            while not self._is_stopping and self.failure is None:
                now = time.monotonic()
                jobs_at = self._slot_jobs.due_at()
                others_at = min(self.world_registry.previews.due_at(), self.compilation.due_at())
                spare_at = max(others_at, self._slot_jobs.spare_time_at())
                wake_at = min(self._registry.maintain(now), self._ticks.plan(now).wake_at, jobs_at, spare_at)
                if wake_at <= now:
                    return True
                self._lock.wait(None if wake_at == NEVER else wake_at - now)
            return False

    def _fail(self, failure: Exception, world: str) -> None:
        """End every session because a world failed; the log has the traceback, clients get none. From either thread."""
        logger.error("%s failed; nobody can play until this process is started again", world, exc_info=failure)
        error = InternalError("the world failed; the server's log says why. Connect again later")
        with self._lock:
            if self.failure is None:
                self.failure, self.failed_world = failure, world
            self._registry.fail_all(error)
            self._lock.notify_all()
