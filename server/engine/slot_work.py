"""What slot jobs do: starts, rewinds, forks, and sessions that are restored, saved or suspended. Owns each job's parts
and what its client is told; knows nothing of when a part runs (`slot_jobs` does).

Every part takes at most as long as a step. A job that depends on what is in its slot first waits until the decode
thread is done with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from server.admission.session_entry import SessionEntry
from server.admission.session_registry import SessionRegistry
from server.engine.decode_pipeline import DecodePipeline, Row, Tick
from server.engine.world_registry import WorldRegistry
from server.sessions.branches import LIFETIME_S, BranchRegistry
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from server.state.session_file import to_file
from server.state.stored_session import SuspendedSession
from server.wire.protocol import Forked, Saved

SAVE_EVERY_S = 1.0
"""How often a session that plays on is written to the store."""

Parts = Generator[None, None, None]
SlotJob = tuple[float, Callable[[SessionEntry, int], Parts]]
"""When it is due, and what to do for a session in its slot; the session may be gone before it is done."""


class SlotWork:
    """The jobs of an engine's sessions.

    hold_s: how long a session without a connection keeps its slot; saves: whether running sessions are written to the
    store.
    """

    def __init__(
        self,
        world_registry: WorldRegistry,
        pipeline: DecodePipeline,
        lock: EngineLock,
        registry: SessionRegistry,
        branches: BranchRegistry,
        *,
        hold_s: float,
        saves: bool,
    ) -> None:
        self._world_registry, self._pipeline, self._lock = world_registry, pipeline, lock
        self._registry, self._branches = registry, branches
        self._hold_s, self._saves = hold_s, saves

    def jobs_of(self, entry: SessionEntry) -> Iterator[SlotJob]:
        """Yield the jobs that the session's phase allows. Needs the lock."""
        session, life = entry.session, entry.session.life
        if life.may_restore:
            yield -NEVER, self._restore
        yield session.start_at(), self._begin_run
        yield session.fork_at(), self._make_branch
        if life.may_suspend and life.lost_at is not None:
            yield life.lost_at + self._hold_s, self._suspend
        elif life.may_step and self._saves and entry.version != entry.saved_version:
            yield entry.saved_at + SAVE_EVERY_S, self._save

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
        state = yield from runner.fork(slot, request.run_frame, exact=not request.as_file)
        with self._lock:
            if not self._registry.has(entry):
                return
            session.life.copied()
            receipts = session.control_applied(request.control_seq)
            branch = session.run.branch(state, request.run_frame)
            ticket = None if request.as_file else self._branches.put(branch, time.monotonic(), entry.address)
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
        yield from self._world_registry.runner(entry.session.world.name).restore(slot, suspended.state)
        with self._lock:
            if self._registry.has(entry):
                entry.suspended = None
                entry.session.life.restored()

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
