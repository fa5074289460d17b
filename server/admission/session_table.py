"""The sessions that have a slot or a place in the queue. Owns their table, who is admitted, and what clients learn of
it; knows no stores and no models.

Every method needs the engine's lock. Slots and phases change first and together; only then is anybody told. If telling
a client fails, its session ends, so that no fault leaves a slot or a place in the queue without an owner.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from server.admission.admission_queue import AdmissionQueue, Admitted, Waiting
from server.admission.capacity import RECENT_S, Demand, load
from server.admission.session_entry import SessionEntry
from server.admission.session_factory import welcome
from server.config import ServerConfig
from server.errors import InternalError
from server.sessions.lock import EngineLock
from server.sessions.session import Request
from server.state.state_owner import StateOwner
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracer
from server.wire.protocol import Pause, Play, Queued, ServerMessage, WorldInfo
from world.device import num_cores

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 1.0


class ServedWorlds(Protocol):
    """What admission needs to know of the worlds that are served."""

    @property
    def latency_s(self) -> Mapping[str, Mapping[int, float]]:
        """Return seconds per step and decoding, by world and batch size."""

    def info(self, name: str) -> WorldInfo:
        """Return a world's description. Raise UnknownWorldError."""

    def state_owner(self, name: str) -> StateOwner:
        """Return what can restore the states of a world's sessions."""


class SessionTable:
    """Session entries by key. Changes go to `metrics` and `tracer`, and notify `lock`."""

    def __init__(
        self, config: ServerConfig, worlds: ServedWorlds, metrics: Metrics, tracer: Tracer, lock: EngineLock
    ) -> None:
        self._config, self._worlds, self._metrics, self._tracer, self._lock = config, worlds, metrics, tracer, lock
        self.entries: dict[str, SessionEntry] = {}
        self._watched_at, self._found_without_owner = 0.0, set[str]()
        self.freed_slots: deque[tuple[str, int]] = deque()  # world and slot; their contents are to be released
        self.queue = AdmissionQueue(config.max_sessions, config.queue_limit, self._has_time, config.address_share)

    def with_slot(self) -> list[SessionEntry]:
        """Return the sessions that have a slot."""
        self._lock.assert_held()
        return [entry for entry in self.entries.values() if entry.session.life.has_slot]

    def has(self, entry: SessionEntry) -> bool:
        """Return whether this very entry is in the table."""
        self._lock.assert_held()
        return self.entries.get(entry.session.key) is entry

    def add(self, entry: SessionEntry) -> None:
        """Give a session a slot or a place in the queue. Raise ServerFullError; nothing has changed then."""
        self._lock.assert_held()
        key = entry.session.key
        self.entries[key] = entry
        try:
            place = self.queue.join(key, time.monotonic(), entry.address)
        except BaseException:
            del self.entries[key]
            raise
        self._announce([place, *self.queue.waiting_behind(key)])

    def remove(self, entry: SessionEntry, slot: int | None) -> None:
        """Remove a session that has just left `slot`, or the queue; others move up."""
        self._lock.assert_held()
        session = entry.session
        del self.entries[session.key]
        if slot is not None:
            self.freed_slots.append((session.world.name, slot))
        self._announce(self.queue.leave(session.key, time.monotonic()))
        try:
            self._tracer.left(session.key)
        except Exception:  # a session has ended, whether or not that can be traced
            logger.exception("the end of session %s could not be traced", session.key)

    def receive(self, entry: SessionEntry, message: Request, now: float) -> list[ServerMessage]:
        """Apply a message of a session that has a slot. Return the replies. Raise a ServerError.

        A session that was not stepped lately did not count when others were admitted. Before it plays on, it is asked
        again whether there is time for it; until then it waits in the queue, in its slot, and its `Play` has no
        receipt, unless another `Play` or `Pause` takes its place.
        """
        self._lock.assert_held()
        if not isinstance(message, Play | Pause):
            return entry.session.receive(message, now)
        is_idle = now - entry.session.stepped_at >= RECENT_S
        if isinstance(message, Pause) or not is_idle:
            return [*self._withdraw(entry), *entry.session.receive(message, now)]
        key, replaced = entry.session.key, self._receipt_of_returning(entry)
        place = self.queue.ask_again(key)
        if isinstance(place, Admitted):
            return entry.session.receive(message, now)
        behind = [] if entry.returning else self.queue.waiting_behind(key)
        entry.returning = message
        self._announce([place, *behind])
        return [*replaced, *entry.session.receive(Pause(), now)]

    def _play_on(self, entry: SessionEntry, message: Play) -> None:
        now = time.monotonic()
        entry.returning, entry.session.stepped_at = None, now
        entry.send_queue.put(*entry.session.receive(message, now))

    def _withdraw(self, entry: SessionEntry) -> list[ServerMessage]:
        """Let a session wait for time no longer. Return the receipt owed for its `Play`."""
        replaced, entry.returning = self._receipt_of_returning(entry), None
        self._announce(self.queue.withdraw(entry.session.key))
        return replaced

    def _receipt_of_returning(self, entry: SessionEntry) -> list[ServerMessage]:
        return [] if entry.returning is None else entry.session.control_applied(entry.returning.seq)

    def announce(self, entry: SessionEntry) -> None:
        """Tell a client that reconnected about its slot or its place in the queue."""
        self._lock.assert_held()
        self._withdraw(entry)
        self._announce([self.queue.place(entry.session.key)])

    def admit_waiting(self, now: float) -> None:
        """Admit queued sessions for which there is room now."""
        self._lock.assert_held()
        self._announce(self.queue.admit_more(now))

    def watch(self, now: float) -> None:
        """End sessions that are found without an owner twice in a row: no fault of the server costs a slot for ever."""
        self._lock.assert_held()
        if now < self._watched_at + WATCH_EVERY_S:
            return
        found = {entry.session.key for entry in self.without_owner()}
        for key in found & self._found_without_owner:
            logger.error("session %s has no connection and does not wait for one; it ends", key)
            self.remove(self.entries[key], self.entries[key].session.life.end())
        self._watched_at, self._found_without_owner = now, found

    def without_owner(self) -> list[SessionEntry]:
        """Return the sessions whose connection has ended without anybody having noted it: a fault of the server."""
        self._lock.assert_held()
        entries = self.entries.values()
        return [entry for entry in entries if entry.send_queue.is_detached and not entry.session.life.is_held]

    def _announce(self, places: Sequence[Admitted | Waiting]) -> None:
        """Give the admitted sessions their slots, then tell all clients of their places."""
        newly_admitted = []
        for place in places:
            entry = self.entries[place.key]
            if isinstance(place, Admitted) and not entry.session.life.has_slot:
                entry.session.life.admit(place.slot)
                newly_admitted.append(entry)
        failed = []
        for place in places:
            entry = self.entries[place.key]
            try:
                self._tell(entry, place, is_new=entry in newly_admitted)
            except Exception:  # whatever it is, it concerns this client alone
                logger.exception("session %s could not be told of its place, and ends", place.key)
                failed.append(entry)
        for entry in failed:
            if self.has(entry):
                self.remove(entry, entry.session.life.end())
                entry.send_queue.end(InternalError("the server failed; its log says why"))
        self._lock.notify()

    def _tell(self, entry: SessionEntry, place: Admitted | Waiting, *, is_new: bool) -> None:
        session = entry.session
        if isinstance(place, Waiting):
            entry.send_queue.put(Queued(position=place.position, eta_s=place.eta_s))
            return
        if entry.returning is not None:
            self._play_on(entry, entry.returning)
            return
        if is_new:  # a session that is back after a while is asked again before it plays on
            session.stepped_at = time.monotonic()
        entry.send_queue.put(welcome(entry, self._config))
        if is_new and entry.suspended is not None:
            seen = last_seen(entry.last_frame)
            unseen = [frame for frame in entry.suspended.frames if frame[0] > seen]
            entry.send_queue.requeue(unseen, min(seen, session.last_index))
        entry.on_admitted()
        if is_new:  # who comes back to a held slot was admitted before
            self._metrics.admissions.labels(session.world.name).inc()
        self._tracer.admitted(place.key, session.world.name, session.generation)
        logger.info("session %s plays %s in slot %d", place.key, session.world.name, place.slot)

    def _has_time(self, keys: Sequence[str]) -> bool:
        """Return whether ticks and frames, by what they take now, stay in time with these sessions as well."""
        now, headroom = time.monotonic(), self._config.headroom
        others = [entry for entry in self.with_slot() if entry.session.key not in keys]
        busy = [entry for entry in others if now - entry.session.stepped_at < RECENT_S]
        sessions = [entry.session for entry in (*busy, *(self.entries[key] for key in keys))]
        if headroom is None or len(sessions) == 1:
            return True
        demands = [Demand(session.world.name, session.period_s, session.world.chunk_frames) for session in sessions]
        frame_s = self._metrics.frame_cost.frame_s
        return load(demands, self._worlds.latency_s, frame_s, num_cores()) <= headroom


def last_seen(last_frame: int | None) -> int:
    """Return the newest frame that need not be sent again; a client without any picture gets a new one instead."""
    return 2**53 if last_frame is None else last_frame
