"""When slot jobs run (`slot_work` says what they do): they are rarer than a step and cost more. Owns the jobs under
way, their share of the time, and all branches.

The model thread does one part of a job between two ticks: of one session after the other, and only as long as those who
play are not delayed by more than `job_share` allows. Jobs of departed sessions are dropped, and the contents of their
slots are released. A job that fails ends its own session alone; if the jobs of `MAX_FAILED` sessions fail in a row, the
model counts as failed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from server.admission.session_entry import SessionEntry
from server.admission.session_registry import SessionRegistry
from server.engine.decode_pipeline import DecodePipeline
from server.engine.job_share import JobShare
from server.engine.slot_work import Parts, SlotWork
from server.engine.world_registry import WorldRegistry, failures_of
from server.errors import InternalError, ModelFailedError
from server.sessions.branches import Branch, BranchRegistry
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from server.telemetry.log import session_key

logger = logging.getLogger(__name__)

MAX_FAILED = 3
"""Of so many sessions slot jobs may fail, with no successful job or step in between, before the model counts as failed:
a broken device may let no session start, and never show it in a step."""

Job = tuple[SessionEntry, Parts]


class SlotJobs:
    """The slot jobs of an engine. hold_s, saves: as in `SlotWork`; branch_bytes: the most memory that branches take."""

    def __init__(
        self,
        world_registry: WorldRegistry,
        pipeline: DecodePipeline,
        lock: EngineLock,
        registry: SessionRegistry,
        *,
        hold_s: float,
        saves: bool,
        branch_bytes: int,
    ) -> None:
        self._world_registry = world_registry
        self._pipeline = pipeline
        self._lock = lock
        self._registry = registry
        self._branches = BranchRegistry(lock, branch_bytes)
        self._work = SlotWork(world_registry, pipeline, lock, registry, self._branches, hold_s=hold_s, saves=saves)
        self._share = JobShare()
        self._running: deque[Job] = deque()  # at most one per session; the next one's turn first
        self._failed_in_a_row: set[str] = set()  # sessions, by key, since the last success of anybody
        self._failed_before: set[str] = set()  # sessions, by key, since their own last success

    # ---- under the lock, from any thread

    def branch(self, ticket: str, world: str) -> Branch:
        """Return the branch of a ticket. Raise UnknownBranchError."""
        return self._branches.get(ticket, world, time.monotonic())

    def due_at(self) -> float:
        """Return when there is something to do."""
        self._lock.assert_held()
        if self._registry.freed_slots:
            return -NEVER
        jobs_at = -NEVER if self._running else min((at for at, _, _ in self._due_jobs()), default=NEVER)
        return min(self._branches.expires_at(), max(jobs_at, self.spare_time_at()))

    def spare_time_at(self) -> float:
        """Return when the model has time for something that nobody who plays waits for; −∞ if it has now."""
        self._lock.assert_held()
        return self._share.allowed_at(time.monotonic(), self._step_at())

    def _step_at(self) -> float:
        """Return when the next step is due."""
        return min((entry.session.view().runnable_at for entry in self._registry.with_slot()), default=NEVER)

    def _due_jobs(self) -> list[tuple[float, Callable[[SessionEntry, int], Parts], SessionEntry]]:
        """Return when which jobs of sessions that have none under way are due."""
        busy = {entry.session.key for entry, _ in self._running}
        entries = (entry for entry in self._registry.with_slot() if entry.session.key not in busy)
        return [(at, do, entry) for entry in entries for at, do in self._work.jobs_of(entry)]

    # ---- on the model thread

    def note_success(self) -> None:
        """Note that the model works: a slot job or a step has succeeded."""
        self._failed_in_a_row.clear()

    def advance(self) -> None:
        """Do one part of the job whose turn it is, if there is time for it. Raise ModelFailedError if a slot cannot be
        released, or if the jobs of `MAX_FAILED` sessions have failed in a row."""
        self._release_freed_slots()
        while (job := self._next()) is not None:
            self._running.append(job)
        if self._running:
            self.in_spare_time(self._advance_first, lambda: -NEVER)

    def in_spare_time(self, work: Callable[[], None], due_at: Callable[[], float]) -> None:
        """Do this, which must not take longer than a step, if it is due and those who play are not delayed too much by
        it. due_at: when it is due; called with the lock."""
        with self._lock:
            began, step_at = time.monotonic(), self._step_at()
            if due_at() > began or not self._share.may_run(began, step_at):
                return
        try:
            work()
        finally:
            self._share.note(began, time.monotonic(), step_at)

    def _advance_first(self) -> None:
        entry, parts = self._running.popleft()
        session_key.set(entry.session.key)
        try:
            next(parts)
            self._running.append((entry, parts))
        except StopIteration:
            self._failed_before.discard(entry.session.key)
            self.note_success()
        except Exception as exc:  # noqa: BLE001  # whatever a model raises here, it concerns this session's slot alone
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
        """Release what departed sessions left in their slots, stop their jobs, and drop expired branches."""
        with self._lock:
            self._branches.drop_expired(time.monotonic())
            freed = list(self._registry.freed_slots)
            self._registry.freed_slots.clear()
            departed = [job for job in self._running if not self._registry.has(job[0])]
        for job in departed:
            self._running.remove(job)
            entry, parts = job
            try:
                parts.close()
            except Exception:  # it concerns a slot that is released next
                logger.exception("a slot job of session %s, which has left, could not be stopped", entry.session.key)
        for world, slot in freed:
            with failures_of(world):
                self._pipeline.wait_for(slot)
                self._world_registry.runner(world).release(slot)

    def _next(self) -> Job | None:
        """Return the job that has been due for longest. None while a slot is to be released: the job may be for it."""
        with self._lock:
            if self._registry.freed_slots:
                return None
            at, do, entry = min(self._due_jobs(), key=lambda job: job[0], default=(NEVER, None, None))
            if do is None or entry is None or at > time.monotonic():
                return None
            slot = entry.session.life.slot
        assert slot is not None
        return entry, do(entry, slot)
