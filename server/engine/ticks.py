"""One batched step of the sessions that are due, on the model thread. Owns what happens between a plan and the decode
thread; knows no slot jobs and no end of the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from server.admission.session_registry import SessionRegistry
from server.engine.decode_pipeline import DecodePipeline, Row, Tick
from server.engine.scheduler import Plan, plan
from server.engine.world_registry import WorldRegistry, failures_of
from server.errors import InternalError
from server.sessions.lock import EngineLock
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracer

logger = logging.getLogger(__name__)


class Ticks:
    """The ticks of an engine. number: how many there were; max_batch: the most sessions in one."""

    def __init__(
        self,
        worlds: WorldRegistry,
        pipeline: DecodePipeline,
        lock: EngineLock,
        registry: SessionRegistry,
        *,
        metrics: Metrics,
        tracer: Tracer,
        max_batch: int,
    ) -> None:
        self._worlds, self._pipeline, self._lock, self._registry = worlds, pipeline, lock, registry
        self._metrics, self._tracer, self._max_batch = metrics, tracer, max_batch
        self.number = 0

    def plan(self, now: float) -> Plan:
        """Return the next tick. Needs the lock."""
        return plan((entry.session.view() for entry in self._registry.with_slot()), now, self._max_batch)

    def run(self) -> bool:
        """Run one tick, if any session is due. Return whether there was one. Raise ModelFailedError."""
        with self._lock:
            now = time.monotonic()
            planned = self.plan(now)
            rows = self._sample(planned.slots, now)
        if planned.world is None or not rows:
            return False
        runner = self._worlds.runner(planned.world)
        trace = self._tracer.tick(self.number, planned.world, [row.key for row in rows])
        with failures_of(planned.world), trace.part("step"):
            stepped = runner.step([row.ticket.sample for row in rows], [row.slot for row in rows])
        self.number += 1
        self._metrics.tick_s.labels(planned.world, len(rows)).observe(stepped.step_ms / 1e3)
        self._pipeline.put(Tick(rows, runner, stepped, trace))
        return True

    def _sample(self, slots: Sequence[int], now: float) -> list[Row]:
        """Sample the newest input of the sessions in these slots. One whose input cannot be sampled ends alone."""
        by_slot = {entry.session.life.slot: entry for entry in self._registry.with_slot()}
        rows = []
        for slot in slots:
            entry = by_slot[slot]
            try:
                ticket, replies = entry.session.begin_chunk(now)
            except Exception:  # a fault of this session's data, whatever it is, concerns nobody else
                logger.exception("session %s cannot be stepped; it ends, others play on", entry.session.key)
                self._registry.fail(entry, InternalError("this session failed; the server's log says why. Join again"))
                continue
            rows.append(Row(entry.session.key, slot, ticket, entry.send_queue))
            entry.send_queue.put(*replies)
        return rows
