"""The sessions that have a slot or a place in the queue. Owns their table, who is admitted, and what clients learn of
it; knows no stores and no models.

Every method needs the engine's lock.
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
from server.errors import ServerError
from server.sessions.lock import EngineLock
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracer
from server.wire.protocol import Queued, WorldInfo

logger = logging.getLogger(__name__)


class ServedWorlds(Protocol):
    """What admission needs to know of the worlds that are served."""

    @property
    def latency_s(self) -> Mapping[str, Mapping[int, float]]:
        """Return seconds per step and decoding, by world and batch size."""

    def info(self, name: str) -> WorldInfo:
        """Return a world's description. Raise UnknownWorldError."""

    def fingerprint(self, name: str) -> str:
        """Return a digest that differs where a stored session cannot be restored."""


class SessionTable:
    """Session entries by key. Changes go to `metrics` and `tracer`, and notify `lock`."""

    def __init__(
        self, config: ServerConfig, worlds: ServedWorlds, metrics: Metrics, tracer: Tracer, lock: EngineLock
    ) -> None:
        self._config, self._worlds, self._metrics, self._tracer, self._lock = config, worlds, metrics, tracer, lock
        self.entries: dict[str, SessionEntry] = {}
        self.freed_slots: deque[tuple[str, int]] = deque()  # world and slot; their contents are to be released
        self.queue = AdmissionQueue(config.max_sessions, config.queue_limit, self._has_time)

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
            place = self.queue.join(key, time.monotonic())
        except ServerError:
            del self.entries[key]
            raise
        self._announce([place])

    def remove(self, entry: SessionEntry, slot: int | None) -> None:
        """Remove a session that has just left `slot`, or the queue; others move up."""
        self._lock.assert_held()
        session = entry.session
        del self.entries[session.key]
        self._tracer.left(session.key)
        if slot is not None:
            self.freed_slots.append((session.world.name, slot))
        self._announce(self.queue.leave(session.key, time.monotonic()))

    def announce(self, entry: SessionEntry) -> None:
        """Tell a client that reconnected about its slot or its place in the queue."""
        self._lock.assert_held()
        self._announce([self.queue.place(entry.session.key)])

    def admit_waiting(self, now: float) -> None:
        """Admit queued sessions for which there is room now."""
        self._lock.assert_held()
        self._announce(self.queue.admit_more(now))

    def _announce(self, places: Sequence[Admitted | Waiting]) -> None:
        for place in places:
            entry = self.entries[place.key]
            if isinstance(place, Waiting):
                entry.send_queue.put(Queued(position=place.position, eta_s=place.eta_s))
                continue
            session, is_new = entry.session, not entry.session.life.has_slot
            if is_new:
                session.life.admit(place.slot)
            session.stepped_at = time.monotonic()
            entry.send_queue.put(welcome(entry, self._config))
            if is_new and entry.suspended is not None:
                seen = last_seen(entry.last_frame)
                unseen = [frame for frame in entry.suspended.frames if frame[0] > seen]
                entry.send_queue.requeue(unseen, min(seen, session.last_index))
            entry.on_admitted()
            self._metrics.admissions.labels(session.world.name).inc()
            self._tracer.admitted(place.key, session.world.name, session.generation)
            logger.info("session %s plays %s in slot %d", place.key, session.world.name, place.slot)
        self._lock.notify()

    def _has_time(self, keys: Sequence[str]) -> bool:
        """Return whether everybody's ticks, at the measured latencies, stay in time with these sessions as well."""
        now, headroom = time.monotonic(), self._config.headroom
        busy = [entry for entry in self.with_slot() if now - entry.session.stepped_at < RECENT_S]
        sessions = [entry.session for entry in (*busy, *(self.entries[key] for key in keys))]
        if headroom is None or len(sessions) == 1:
            return True
        demands = [Demand(session.world.name, session.period_s) for session in sessions]
        return load(demands, self._worlds.latency_s) <= headroom


def last_seen(last_frame: int | None) -> int:
    """Return the newest frame that need not be sent again; a client without any picture gets a new one instead."""
    return 2**53 if last_frame is None else last_frame
