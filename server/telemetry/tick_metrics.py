"""Figures of the served worlds that are read when the metrics are rendered: what admission counts with, and threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

ByBatch = Mapping[str, Mapping[int, float]]
"""Figures by world and batch size."""


class Ticks(Protocol):
    """What is known of the worlds' ticks now."""

    @property
    def latency_s(self) -> ByBatch:
        """Return seconds per step and decoding."""

    @property
    def threads_used(self) -> ByBatch:
        """Return how many threads the newest step used."""


class TickCollector(Collector):
    """The metrics of `ticks`."""

    def __init__(self, ticks: Ticks) -> None:
        self._ticks = ticks

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each metric with its present values."""
        text = "Time of a batched step and its decoding that admission counts with now"
        yield _family("lightcone_admission_tick_seconds", text, self._ticks.latency_s)
        yield _family("lightcone_step_threads", "Threads of a batched step", self._ticks.threads_used)


def _family(name: str, text: str, by_batch: ByBatch) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["world", "batch"])
    for world, values in by_batch.items():
        for batch, value in values.items():
            family.add_metric([world, str(batch)], value)
    return family
