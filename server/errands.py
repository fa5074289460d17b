"""Starts, rewinds and forks: what is rarer and dearer than a step. Owns the one that is under way and all branches.

The model thread does one part between two ticks, so that nobody's world stands still for another's. The session
concerned is `busy` meanwhile. Whose player has left is dropped, and what its slot held is let go.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable

from server.branches import LIFETIME_S, Branch, Branches
from server.hosting import Hosting
from server.log import session_key
from server.member import Member
from server.pipeline import Pipeline, Row, Tick
from server.protocol import Forked
from server.scheduler import NEVER
from server.session import Session

Playing = Callable[[], Iterable[Member]]


class Errands:
    """`lock` guards the sessions; `playing` is called under it."""

    def __init__(self, hosting: Hosting, pipeline: Pipeline, lock: threading.Condition, playing: Playing) -> None:
        self._hosting = hosting
        self._pipeline = pipeline
        self._lock = lock
        self._playing = playing
        self._branches = Branches()
        self._left: deque[tuple[str, int]] = deque()
        self._under_way: tuple[Member, Generator[None, None, None]] | None = None

    # ---- under the lock, from any thread

    def branch(self, ticket: str, world: str) -> Branch:
        """The branch of a ticket. Raises UnknownBranchError."""
        return self._branches.get(ticket, world, time.monotonic())

    def forget(self, session: Session) -> None:
        """The player has left, whatever was wanted."""
        if session.slot is not None:
            self._left.append((session.world.name, session.slot))

    def due_at(self) -> float:
        """When there is something to do."""
        if self._left or self._under_way:
            return -NEVER
        asked = (at for member in self._playing() for at in _asked(member))
        return min(self._branches.expires_at(), *asked, NEVER)

    # ---- on the model thread

    def go_on(self) -> None:
        """One part of what is under way or due."""
        self._let_go()
        if self._under_way is None:
            self._under_way = self._next()
        if self._under_way is not None:
            member, parts = self._under_way
            session_key.set(member.session.key)
            try:
                next(parts)
            except StopIteration:
                self._under_way = None
            session_key.set("-")

    def _let_go(self) -> None:
        """Of what belongs to players who have left, and of branches that nobody came for."""
        with self._lock:
            self._branches.forget(time.monotonic())
            left = list(self._left)
            self._left.clear()
            remaining = {member.session.key for member in self._playing()}
        if self._under_way is not None and self._under_way[0].session.key not in remaining:
            self._under_way[1].close()
            self._under_way = None
        for world, slot in left:
            self._pipeline.wait_for(slot)
            self._hosting.host(world).release(slot)

    def _next(self) -> tuple[Member, Generator[None, None, None]] | None:
        """What has been due for longest. None while a slot is still to be let go: its next player may be the one."""
        with self._lock:
            if self._left:
                return None
            now = time.monotonic()
            member = min(self._playing(), key=lambda m: min(_asked(m)), default=None)
            if member is None or min(_asked(member)) > now:
                return None
            start_at, fork_at = _asked(member)
        return member, self._begin_run(member) if start_at <= fork_at else self._make_branch(member)

    def _begin_run(self, member: Member) -> Generator[None, None, None]:
        """Fill the session's slot. The first picture goes out as a frame of kind "start", in place of frames that have
        not left yet."""
        session = member.session
        assert session.slot is not None
        with self._lock:
            request, ticket, replies = session.begin_run(time.monotonic())
            session.busy = True
        self._pipeline.wait_for(session.slot)  # the codec's state of this slot must not be in use
        picture = yield from self._hosting.host(session.world.name).begin(session.slot, request)
        member.outbox.put(*replies)
        self._pipeline.put(Tick([Row(session.key, session.slot, ticket, member.outbox)], None, picture[None, None]))
        with self._lock:
            session.busy = False

    def _make_branch(self, member: Member) -> Generator[None, None, None]:
        """Keep the session's state and send the ticket to it."""
        session = member.session
        assert session.slot is not None
        with self._lock:
            request, refusals = session.begin_fork(time.monotonic())
            session.busy = not refusals
        member.outbox.put(*refusals)
        if refusals:
            return
        self._pipeline.wait_for(session.slot)
        state = yield from self._hosting.host(session.world.name).fork(session.slot, request.run_frame)
        with self._lock:
            ticket = self._branches.put(session.run.branch(state, request.run_frame), time.monotonic())
            receipts = session.control_applied(request.control_seq)
            session.busy = False
        forked = Forked(seq=request.control_seq, ticket=ticket, run_frame=request.run_frame, expires_s=LIFETIME_S)
        member.outbox.put(forked, *receipts)


def _asked(member: Member) -> tuple[float, float]:
    """When the session's start and its fork are due."""
    return member.session.start_at(), member.session.fork_at()
