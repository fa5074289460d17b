"""What the server counts and times, for Prometheus. Owns the metrics' names; knows no routes and no readers.

Each engine has its own registry. Thread-safe. Times are in seconds, as Prometheus recommends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.telemetry.frame_cost import FrameCost
from server.telemetry.tick_metrics import TickCollector, Ticks

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TICK_S = (0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.033, 0.05, 0.1, 0.25, 1.0)
RENDER_EVERY_S = 1.0
ACTION_S = (0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


class SessionCounts(NamedTuple):
    """How many sessions have a slot, wait for one, are in memory without a slot, and hold a slot or a place in the
    queue that nobody could use or free."""

    playing: int
    waiting: int
    suspended: int
    without_owner: int


class Metrics:
    """The metrics of one engine.

    `counts()` returns the numbers of sessions; it and `ticks` are read when the text is rendered.
    """

    def __init__(self, counts: Callable[[], SessionCounts], ticks: Ticks) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(TickCollector(ticks))
        self.frame_cost = FrameCost()
        self._lock, self._text, self._rendered_at = threading.Lock(), b"", -RENDER_EVERY_S
        self.tick_s = Histogram(
            "lightcone_tick_seconds",
            "Time of a batched step, without decoding",
            ["world", "batch"],
            buckets=TICK_S,
            registry=registry,
        )
        self.decode_s = Histogram(
            "lightcone_decode_seconds", "Time to decode a step's pictures", ["world"], buckets=TICK_S, registry=registry
        )
        self.action_to_frame_s = Histogram(
            "lightcone_action_to_frame_seconds",
            "Time from an act's arrival until its first frame is ready to send",
            buckets=ACTION_S,
            registry=registry,
        )
        self.frames = Counter(
            "lightcone_frames", "Frames that were sent, or replaced by newer ones", ["fate"], registry=registry
        )
        self.admissions = Counter("lightcone_admissions", "Sessions that got a slot", ["world"], registry=registry)
        self.resumes = Counter(
            "lightcone_resumes", "Sessions that were resumed, by where they were kept", ["where"], registry=registry
        )
        self.refusals = Counter(
            "lightcone_refusals", "Connections ended by the server, by error code", ["code"], registry=registry
        )
        playing = Gauge("lightcone_sessions", "Sessions that have a slot", registry=registry)
        playing.set_function(lambda: counts().playing)
        waiting = Gauge("lightcone_queue_length", "Sessions that wait for a slot", registry=registry)
        waiting.set_function(lambda: counts().waiting)
        suspended = Gauge("lightcone_suspended_sessions", "Sessions in memory without a slot", registry=registry)
        suspended.set_function(lambda: counts().suspended)
        without_owner = Gauge(
            "lightcone_sessions_without_owner",
            "Sessions in a slot or in the queue whose connection ended unnoticed; above 0 is a fault of the server",
            registry=registry,
        )
        without_owner.set_function(lambda: counts().without_owner)
        frame_s = Gauge(
            "lightcone_admission_frame_seconds",
            "Time of a frame beside the model that admission counts with now",
            registry=registry,
        )
        frame_s.set_function(lambda: self.frame_cost.frame_s)

    def watch_store(self, num_failures: Callable[[], int]) -> None:
        """Show how many reads and writes of the store have failed."""
        failures = Gauge(
            "lightcone_store_failures", "Reads and writes of the store that have failed", registry=self.registry
        )
        failures.set_function(num_failures)

    def watch_compilation(self, num_parts_left: Callable[[], int]) -> None:
        """Also report how many parts are still to be compiled in the background."""
        text = "Parts of machine code that are still to be compiled in the background"
        Gauge("lightcone_parts_to_compile", text, registry=self.registry).set_function(num_parts_left)

    def count_frames(self, number: int, fate: str) -> None:
        """Count frames as "sent" or "replaced"."""
        self.frames.labels(fate).inc(number)
        if fate == "sent":
            self.frame_cost.sent(number)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format (`CONTENT_TYPE`), at most `RENDER_EVERY_S` old."""
        with self._lock:
            if (now := time.monotonic()) >= self._rendered_at + RENDER_EVERY_S:
                self._text, self._rendered_at = generate_latest(self.registry), now
            return self._text
