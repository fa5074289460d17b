"""Starts, rewinds, forks, and sessions that come and go: what is rarer and dearer than a step. Owns the errand that is
under way and all branches.

The model thread does one part between two ticks, so that nobody's world stands still for another's. The session
concerned is `busy` meanwhile. Whose player has left is dropped, and what its slot held is let go.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol

from server.admission.session_entry import SessionEntry
from server.engine.decode_pipeline import Pipeline, Row, Tick
from server.engine.scheduler import NEVER
from server.engine.world_registry import WorldRegistry
from server.sessions.branches import LIFETIME_S, Branch, Branches
from server.state.session_file import to_file
from server.state.suspended_sessions import SuspendedSession
from server.telemetry.log import session_key
from server.wire.protocol import Forked, Saved

KEEP_EVERY_S = 1.0
"""How often a session that goes on is written to the store."""

Parts = Generator[None, None, None]
SlotJob = tuple[float, Callable[[SessionEntry, int], Parts]]
"""When it is due, and what is to be done for a member in this slot; it may leave the slot meanwhile."""


class Sessions(Protocol):
    """Those who play, and what becomes of them; everything is called under the lock."""

    left: deque[tuple[str, int]]
    """Slots that nobody has any more, with their worlds: what they hold is to be let go."""

    def playing(self) -> Iterable[SessionEntry]: ...

    def has(self, entry: SessionEntry) -> bool:
        """Whether it is still here."""

    def suspend(self, suspended: SuspendedSession) -> None:
        """It has left its slot."""

    def keep(self, suspended: SuspendedSession) -> None:
        """It goes on; write down what it is now."""


class SlotJobs:
    """`lock` guards the sessions. hold_s: how long a session whose player is gone keeps its slot. keeps: whether what
    goes on is written down."""

    def __init__(
        self,
        world_registry: WorldRegistry,
        pipeline: Pipeline,
        lock: threading.Condition,
        sessions: Sessions,
        *,
        hold_s: float,
        keeps: bool,
    ) -> None:
        self._world_registry = world_registry
        self._pipeline = pipeline
        self._lock = lock
        self._sessions = sessions
        self._hold_s, self._keeps = hold_s, keeps
        self._branches = Branches()
        self._under_way: tuple[SessionEntry, Parts] | None = None

    # ---- under the lock, from any thread

    def branch(self, ticket: str, world: str) -> Branch:
        """The branch of a ticket. Raises UnknownBranchError."""
        return self._branches.get(ticket, world, time.monotonic())

    def due_at(self) -> float:
        """When there is something to do."""
        if self._sessions.left or self._under_way:
            return -NEVER
        asked = (at for entry in self._sessions.playing() for at, _ in self._asked(entry))
        return min(self._branches.expires_at(), min(asked, default=NEVER))

    def _asked(self, entry: SessionEntry) -> Iterator[SlotJob]:
        """What the session is owed."""
        session = entry.session
        if entry.suspended is not None:
            yield -NEVER, self._restore
            return
        yield session.start_at(), self._begin_run
        yield session.fork_at(), self._make_branch
        if not entry.filled:
            return
        if session.away_since is not None:
            yield session.away_since + self._hold_s, self._suspend
        elif self._keeps and entry.standing != entry.kept_as:
            yield entry.kept_at + KEEP_EVERY_S, self._keep

    # ---- on the model thread

    def go_on(self) -> None:
        """One part of what is under way or due."""
        self._let_go()
        if self._under_way is None:
            self._under_way = self._next()
        if self._under_way is not None:
            entry, parts = self._under_way
            session_key.set(entry.session.key)
            try:
                next(parts)
            except StopIteration:
                self._under_way = None
            session_key.set("-")

    def _let_go(self) -> None:
        """Of what belongs to players who have left, and of branches that nobody came for."""
        with self._lock:
            self._branches.forget(time.monotonic())
            left = list(self._sessions.left)
            self._sessions.left.clear()
            is_gone = self._under_way is not None and not self._sessions.has(self._under_way[0])
        if self._under_way is not None and is_gone:
            self._under_way[1].close()
            self._under_way = None
        for world, slot in left:
            self._pipeline.wait_for(slot)
            self._world_registry.runner(world).release(slot)

    def _next(self) -> tuple[SessionEntry, Parts] | None:
        """What has been due for longest. None while a slot is still to be let go: its next player may be the one."""
        with self._lock:
            if self._sessions.left:
                return None
            asked = ((at, what, m) for m in self._sessions.playing() for at, what in self._asked(m))
            at, what, entry = min(asked, key=lambda job: job[0], default=(NEVER, None, None))
            if what is None or entry is None or at > time.monotonic():
                return None
            slot = entry.session.slot
        assert slot is not None
        return entry, what(entry, slot)

    def _begin_run(self, entry: SessionEntry, slot: int) -> Parts:
        """Fill the session's slot. The first picture goes out as a frame of kind "start", in place of frames that have
        not left yet."""
        session = entry.session
        with self._lock:
            request, ticket, replies = session.begin_run(time.monotonic())
            session.busy = True
        self._pipeline.wait_for(slot)  # the codec's state of this slot must not be in use
        picture = yield from self._world_registry.runner(session.world.name).begin(slot, request)
        entry.send_queue.put(*replies)
        self._pipeline.put(Tick([Row(session.key, slot, ticket, entry.send_queue)], None, picture[None, None]))
        with self._lock:
            session.busy, entry.filled = False, True

    def _make_branch(self, entry: SessionEntry, slot: int) -> Parts:
        """Keep the session's state and send the ticket to it; or send the state itself."""
        session = entry.session
        with self._lock:
            request, refusals = session.begin_fork(time.monotonic())
            session.busy = not refusals
        entry.send_queue.put(*refusals)
        if refusals:
            return
        self._pipeline.wait_for(slot)
        state = yield from self._world_registry.runner(session.world.name).fork(slot, request.run_frame)
        with self._lock:
            session.busy = False
            receipts = session.control_applied(request.control_seq)
            branch = session.run.branch(state, request.run_frame)
            ticket = None if request.as_file else self._branches.put(branch, time.monotonic())
        seq, run_frame = request.control_seq, request.run_frame
        if ticket is None:
            file = to_file(session.world.name, self._world_registry.runner(session.world.name), state)
            entry.send_queue.put(Saved(seq=seq, run_frame=run_frame, file=file), *receipts)
        else:
            forked = Forked(seq=seq, ticket=ticket, run_frame=run_frame, expires_s=LIFETIME_S)
            entry.send_queue.put(forked, *receipts)

    def _restore(self, entry: SessionEntry, slot: int) -> Parts:
        """Put a session that was parked into its slot; nobody sees anything of it."""
        assert entry.suspended is not None
        self._world_registry.runner(entry.session.world.name).restore(slot, entry.suspended.state)
        with self._lock:
            if self._sessions.has(entry):
                entry.suspended, entry.filled = None, True
        yield from ()  # all in one part

    def _suspend(self, entry: SessionEntry, slot: int) -> Parts:
        """Take a session out of its slot; unless its player comes back meanwhile."""
        session = entry.session
        self._pipeline.wait_for(slot)  # its last frames must be among those to send again
        state = self._world_registry.runner(session.world.name).snapshot(slot, exact=True)
        with self._lock:
            if session.away_since is not None and self._sessions.has(entry):
                session.run.first_frame = session.run.frame  # what is older is not in the state
                self._sessions.suspend(SuspendedSession(session, entry.ticket, state, entry.send_queue.unseen()))
        yield from ()  # all in one part

    def _keep(self, entry: SessionEntry, slot: int) -> Parts:
        """Write down what the session is now."""
        session = entry.session
        state = self._world_registry.runner(session.world.name).snapshot(slot, exact=False)
        with self._lock:
            if self._sessions.has(entry):
                entry.kept_at, entry.kept_as = time.monotonic(), entry.standing
                self._sessions.keep(SuspendedSession(session, entry.ticket, state, []))
        yield from ()  # all in one part
