"""Optional traces: a span for each session's time in its slot, and one for some ticks, with their parts.

Owns the spans' names and attributes. The only file that knows OpenTelemetry, an optional dependency that is imported
when there is something to trace. It uses a provider of its own instead of the process's, so that nothing but these
spans is sent. Knows no sessions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server.config import ServerConfig
from server.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SpanExporter

FLUSH_TIMEOUT_S = 5.0


class TickTrace:
    """The trace of one tick, used by one thread after the other. Without a span it does nothing."""

    def __init__(self, spans: trace.Tracer | None = None, span: trace.Span | None = None) -> None:
        self._spans, self._span = spans, span

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Trace a part of the tick. An exception is recorded and ends the tick's span."""
        if self._spans is None or self._span is None:
            yield
            return
        from opentelemetry.trace import use_span

        try:
            with use_span(self._span), self._spans.start_as_current_span(name):
                yield
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the tick's span, unless it has ended already."""
        if self._span is not None and self._span.is_recording():
            self._span.end()


class Tracer:
    """What the engine reports, under its lock or from the model thread. This class discards it."""

    def admitted(self, key: str, world: str, generation: int) -> None:
        """Note that a session got a slot, or that it still has one and was resumed over another connection."""

    def left(self, key: str) -> None:
        """Note that a session has left its slot or the queue."""

    def tick(self, number: int, world: str, keys: Sequence[str]) -> TickTrace:
        """Begin the trace of a batched step of these sessions."""
        return TickTrace()

    def close(self) -> None:
        """Send the remaining spans; give up after `FLUSH_TIMEOUT_S` if the collector does not answer."""


class SpanTracer(Tracer):
    """Sends the reports as spans. every: one tick in this many is traced. Raises ImportError without the SDK."""

    def __init__(self, exporter: SpanExporter, every: int) -> None:
        from opentelemetry.context import Context
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider, export

        resource = Resource.create({"service.name": "lightcone"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._spans, self._every = self._provider.get_tracer("lightcone"), every
        self._sessions: dict[str, trace.Span] = {}
        self._root = Context()  # an empty context, so that spans have no parent, whatever span the thread is in

    def admitted(self, key: str, world: str, generation: int) -> None:
        if key not in self._sessions:
            attributes = {"session.id": key, "lightcone.world": world}
            self._sessions[key] = self._spans.start_span("session", self._root, attributes=attributes)
        self._sessions[key].set_attribute("lightcone.generation", generation)

    def left(self, key: str) -> None:
        if (span := self._sessions.pop(key, None)) is not None:
            span.end()

    def tick(self, number: int, world: str, keys: Sequence[str]) -> TickTrace:
        if number % self._every:
            return TickTrace()
        from opentelemetry.trace import Link

        attributes: dict[str, str | int] = {
            "lightcone.tick": number,
            "lightcone.world": world,
            "lightcone.batch_size": len(keys),
        }
        links = [Link(span.get_span_context()) for key in keys if (span := self._sessions.get(key)) is not None]
        return TickTrace(self._spans, self._spans.start_span("tick", self._root, links=links, attributes=attributes))

    def close(self) -> None:
        while self._sessions:
            self._sessions.popitem()[1].end()
        sending = threading.Thread(target=self._provider.shutdown, name="lightcone-traces", daemon=True)
        sending.start()
        sending.join(FLUSH_TIMEOUT_S)


def open_tracer(config: ServerConfig) -> Tracer:
    """Return the tracer that the settings select. Raises ConfigError if OpenTelemetry is needed and not installed."""
    if not config.trace:
        return Tracer()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return SpanTracer(OTLPSpanExporter(), config.trace_every)
    except ImportError as exc:
        raise ConfigError(f"--trace: {exc.name} is not installed; pip install 'lightcone[trace]'") from exc
