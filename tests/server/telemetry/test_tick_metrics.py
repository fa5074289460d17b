"""What admission counts with, and threads, by world and batch size, as they are when somebody asks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from server.telemetry.tick_metrics import TickCollector


class Ticks:
    def __init__(self) -> None:
        self.latency_s: dict[str, dict[int, float]] = {}
        self.threads_used: dict[str, dict[int, float]] = {}


def test_metrics_follow_the_ticks() -> None:
    ticks, registry = Ticks(), CollectorRegistry()
    registry.register(TickCollector(ticks))
    assert "batch=" not in generate_latest(registry).decode(), "nothing is known before the worlds are loaded"
    ticks.latency_s = {"pong": {1: 0.02, 8: 0.05}}
    ticks.threads_used = {"pong": {1: 1, 8: 2}}
    text = generate_latest(registry).decode()
    assert 'lightcone_admission_tick_seconds{batch="8",world="pong"} 0.05' in text
    assert 'lightcone_step_threads{batch="1",world="pong"} 1.0' in text
