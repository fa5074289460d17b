"""Slot jobs: starts, rewinds, forks, and sessions that are restored, saved or suspended. They are rarer than a step and
cost more. Owns the running job and all branches.

The model thread does one part of a job between two ticks, so that nobody's world waits for another's. Jobs of departed
sessions are dropped, and the contents of their slots are released. A job that fails ends its own session alone; if the
jobs of `MAX_FAILED` sessions fail in a row, the model counts as failed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator

from server.admission.session_entry import SessionEntry
from server.admission.session_registry import SessionRegistry
from server.engine.decode_pipeline import DecodePipeline, Row, Tick
from server.engine.world_registry import WorldRegistry, failures_of
from server.errors import InternalError, ModelFailedError
from server.sessions.branches import LIFETIME_S, Branch, BranchRegistry
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from server.state.session_file import to_file
from server.state.stored_session import SuspendedSession
from server.telemetry.log import session_key
from server.wire.protocol import Forked, Saved

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 1.0
"""How often a session that plays on is written to the store."""

MAX_FAILED = 3
"""Of so many sessions slot jobs may fail, with no successful job or step in between, before the model counts as failed:
a broken device may let no session start, and never show it in a step."""

Parts = Generator[None, None, None]
SlotJob = tuple[float, Callable[[SessionEntry, int], Parts]]
"""When it is due, and what to do for a session in its slot; the session may be gone before it is done."""


class SlotJobs:
    """The slot jobs of an engine.

    hold_s: how long a session without a connection keeps its slot; saves: whether running sessions are written to the
    store.
    """

    def __init__(
        self,
        world_registry: WorldRegistry,
        pipeline: DecodePipeline,
        lock: EngineLock,
        registry: SessionRegistry,
        *,
        hold_s: float,
        saves: bool,
    ) -> None:
        self._world_registry = world_registry
        self._pipeline = pipeline
        self._lock = lock
        self._registry = registry
        self._hold_s, self._saves = hold_s, saves
        self._branches = BranchRegistry(lock)
        self._running: tuple[SessionEntry, Parts] | None = None
        self._failed_in_a_row: set[str] = set()  # sessions, by key, since the last success of anybody
        self._failed_before: set[str] = set()  # sessions, by key, since their own last success

    # ---- under the lock, from any thread

    def branch(self, ticket: str, world: str) -> Branch:
        """Return the branch of a ticket. Raise UnknownBranchError."""
        return self._branches.get(ticket, world, time.monotonic())

    def due_at(self) -> float:
        """Return when there is something to do."""
        self._lock.assert_held()
        if self._registry.freed_slots or self._running:
            return -NEVER
        jobs = (at for entry in self._registry.with_slot() for at, _ in self._jobs_of(entry))
        return min(self._branches.expires_at(), min(jobs, default=NEVER))

    def _jobs_of(self, entry: SessionEntry) -> Iterator[SlotJob]:
        """Yield the jobs that the session's phase allows."""
        session, life = entry.session, entry.session.life
        if life.may_restore:
            yield -NEVER, self._restore
        yield session.start_at(), self._begin_run
        yield session.fork_at(), self._make_branch
        if life.may_suspend and life.lost_at is not None:
            yield life.lost_at + self._hold_s, self._suspend
        elif life.may_step and self._saves and entry.version != entry.saved_version:
            yield entry.saved_at + SAVE_EVERY_S, self._save

    # ---- on the model thread

    def note_success(self) -> None:
        """Note that the model works: a slot job or a step has succeeded."""
        self._failed_in_a_row.clear()

    def advance(self) -> None:
        """Do one part of the running job, or of the one that is due. Raise ModelFailedError if a slot cannot be
        released, or if the jobs of `MAX_FAILED` sessions have failed in a row."""
        self._release_freed_slots()
        if self._running is None:
            self._running = self._next()
        if self._running is None:
            return
        entry, parts = self._running
        session_key.set(entry.session.key)
        try:
            next(parts)
        except StopIteration:
            self._running = None
            self._failed_before.discard(entry.session.key)
            self.note_success()
        except Exception as exc:  # noqa: BLE001  # whatever a model raises here, it concerns this session's slot alone
            self._running = None
            self._fail(entry, exc)
        finally:
            session_key.set("-")

    def _fail(self, entry: SessionEntry, failure: Exception) -> None:
        """End a session whose job failed. If its last one here failed too, delete it from the store: its player would
        come back to the same failure again and again. Not at the first failure: the fault may be the device's."""
        key = entry.session.key
        logger.error("a slot job of session %s failed; the session ends, others play on", key, exc_info=failure)
        with self._lock:
            if key in self._failed_before and self._registry.has(entry):
                self._registry.forget(key)
            self._registry.fail(entry, InternalError("this session failed; the server's log says why. Join again"))
        self._failed_before.add(key)
        self._failed_in_a_row.add(key)
        if len(self._failed_in_a_row) >= MAX_FAILED:
            raise ModelFailedError(entry.session.world.name) from failure

    def _release_freed_slots(self) -> None:
        """Release what departed sessions left in their slots, stop their job, and drop expired branches."""
        with self._lock:
            self._branches.drop_expired(time.monotonic())
            freed = list(self._registry.freed_slots)
            self._registry.freed_slots.clear()
            is_departed = self._running is not None and not self._registry.has(self._running[0])
        if self._running is not None and is_departed:
            (entry, parts), self._running = self._running, None
            try:
                parts.close()
            except Exception:  # it concerns a slot that is released next
                logger.exception("a slot job of session %s, which has left, could not be stopped", entry.session.key)
        for world, slot in freed:
            with failures_of(world):
                self._pipeline.wait_for(slot)
                self._world_registry.runner(world).release(slot)

    def _next(self) -> tuple[SessionEntry, Parts] | None:
        """Return the job that has been due for longest. None while a slot is to be released: the job may be for it."""
        with self._lock:
            if self._registry.freed_slots:
                return None
            jobs = ((at, do, entry) for entry in self._registry.with_slot() for at, do in self._jobs_of(entry))
            at, do, entry = min(jobs, key=lambda job: job[0], default=(NEVER, None, None))
            if do is None or entry is None or at > time.monotonic():
                return None
            slot = entry.session.life.slot
        assert slot is not None
        return entry, do(entry, slot)

    def _begin_run(self, entry: SessionEntry, slot: int) -> Parts:
        """Fill the session's slot. The run's first picture is sent as a frame of kind "start", in place of frames that
        have not left yet."""
        session = entry.session
        with self._lock:
            now = time.monotonic()
            if not self._registry.has(entry) or session.start_at() > now:
                return
            refusals = session.refuse_rewind(now)
            if refusals is not None:
                entry.send_queue.put(*refusals)
                return
            request, ticket, replies = session.begin_run(now)
        self._pipeline.wait_for(slot)  # the codec's state of this slot must not be in use
        picture = yield from self._world_registry.runner(session.world.name).begin(slot, request)
        entry.send_queue.put(*replies)
        self._pipeline.put(Tick([Row(session.key, slot, ticket, entry.send_queue)], None, picture[None, None]))
        with self._lock:
            if self._registry.has(entry):
                session.life.filled()

    def _make_branch(self, entry: SessionEntry, slot: int) -> Parts:
        """Keep the session's state as a branch and send its ticket, or send the state itself as a file."""
        session = entry.session
        with self._lock:
            now = time.monotonic()
            if not self._registry.has(entry) or session.fork_at() > now:
                return
            request, refusals = session.begin_fork(now)
        entry.send_queue.put(*refusals)
        if refusals:
            return
        runner = self._world_registry.runner(session.world.name)
        self._pipeline.wait_for(slot)
        state = yield from runner.fork(slot, request.run_frame)
        with self._lock:
            if not self._registry.has(entry):
                return
            session.life.copied()
            receipts = session.control_applied(request.control_seq)
            branch = session.run.branch(state, request.run_frame)
            ticket = None if request.as_file else self._branches.put(branch, time.monotonic())
        seq, run_frame = request.control_seq, request.run_frame
        if ticket is None:
            file = to_file(session.world.name, runner, state)
            entry.send_queue.put(Saved(seq=seq, run_frame=run_frame, file=file), *receipts)
        else:
            forked = Forked(seq=seq, ticket=ticket, run_frame=run_frame, expires_s=LIFETIME_S)
            entry.send_queue.put(forked, *receipts)

    def _restore(self, entry: SessionEntry, slot: int) -> Parts:
        """Put a suspended session into its slot; its player sees nothing of it."""
        suspended = entry.suspended
        assert suspended is not None
        self._world_registry.runner(entry.session.world.name).restore(slot, suspended.state)
        with self._lock:
            if self._registry.has(entry):
                entry.suspended = None
                entry.session.life.restored()
        yield from ()  # all in one part

    def _suspend(self, entry: SessionEntry, slot: int) -> Parts:
        """Take a session out of its slot, unless its player reconnects meanwhile."""
        session = entry.session
        self._pipeline.wait_for(slot)  # its last frames must be among those to send again
        state = self._world_registry.runner(session.world.name).snapshot(slot, exact=True)
        with self._lock:
            if self._registry.has(entry) and session.life.may_suspend:
                session.run.first_frame = session.run.frame  # the state reaches no older frames
                frames = entry.send_queue.unacknowledged()
                self._registry.suspend(SuspendedSession(session, entry.ticket, state, frames, entry.address))
        yield from ()  # all in one part

    def _save(self, entry: SessionEntry, slot: int) -> Parts:
        """Write a running session to the store."""
        session = entry.session
        state = self._world_registry.runner(session.world.name).snapshot(slot, exact=False)
        with self._lock:
            if self._registry.has(entry):
                entry.saved_at, entry.saved_version = time.monotonic(), entry.version
                self._registry.save(SuspendedSession(session, entry.ticket, state, [], entry.address))
        yield from ()  # all in one part
