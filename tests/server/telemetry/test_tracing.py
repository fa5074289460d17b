"""Traces: the spans of sessions and ticks, how they are exported, and that nothing is loaded unless requested."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from server.config import ServerConfig
from server.engine.model_runner import ModelRunner
from server.errors import ConfigError
from server.http.app import create_app
from server.telemetry import tracing
from server.telemetry.tracing import SpanTracer, open_tracer
from server.wire.protocol import Bye, Resume
from tests.server.raw import hello, raw_client
from tests.server.serving import serve
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ServerConfig(address_share=1.0, max_sessions=2, num_threads=1, headroom=None)
PARTS = ("step", "decode", "encode")


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Return the spans of that name, in the order in which they ended."""
    return [span for span in spans.get_finished_spans() if span.name == name]


def parts_of(spans: InMemorySpanExporter, tick: ReadableSpan) -> list[ReadableSpan]:
    """Return a span's children, in the order in which they began."""
    children = [s for s in spans.get_finished_spans() if s.parent is not None and s.parent == tick.context]
    return sorted(children, key=lambda span: span.start_time or 0)


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_each_of_two_players_has_a_span_that_their_shared_ticks_link_to() -> None:
    spans = InMemorySpanExporter()
    with serve(CONFIG, {"pixel": tiny_world}, tracer=SpanTracer(spans, every=1)) as server:
        async with raw_client(server.url, hello()) as one, raw_client(server.url, hello()) as two:
            await asyncio.gather(one.play(20), two.play(20))
            keys = {one.welcome.session, two.welcome.session}
            for client in (one, two):
                await client.send(Bye())
                await client.close_code()
    sessions = {str(attributes(span)["session.id"]): span for span in named(spans, "session")}
    assert sessions.keys() == keys
    for span in sessions.values():
        assert span.parent is None
        assert attributes(span)["lightcone.world"] == "pixel"
        assert attributes(span)["lightcone.generation"] == 0
        assert span.resource.attributes["service.name"] == "lightcone"
    ticks = named(spans, "tick")
    assert [attributes(tick)["lightcone.tick"] for tick in ticks] == list(range(len(ticks)))
    assert any(attributes(tick)["lightcone.batch_size"] == 2 for tick in ticks)
    for tick in ticks:
        assert tick.parent is None
        assert attributes(tick)["lightcone.world"] == "pixel"
        linked = {link.context.span_id for link in tick.links}
        assert len(linked) == attributes(tick)["lightcone.batch_size"]
        assert linked <= {session.context.span_id for session in sessions.values() if session.context}
        parts = parts_of(spans, tick)
        assert tuple(part.name for part in parts) == PARTS
        times = [time or 0 for part in parts for time in (part.start_time, part.end_time)]
        times = [tick.start_time or 0, *times, tick.end_time or 0]
        assert times == sorted(times)


async def test_one_tick_in_every_few_is_traced() -> None:
    spans = InMemorySpanExporter()
    with serve(CONFIG, {"pixel": tiny_world}, tracer=SpanTracer(spans, every=3)) as server:
        async with raw_client(server.url, hello()) as client:
            await client.play(10)
        num_ticks = server.engine.num_ticks
    numbers = [attributes(tick)["lightcone.tick"] for tick in named(spans, "tick")]
    assert numbers[:3] == [0, 3, 6]
    assert len(named(spans, "step")) == len(numbers) <= num_ticks // 3 + 2


async def test_a_resumed_session_keeps_its_span_until_the_server_stops() -> None:
    spans = InMemorySpanExporter()
    with serve(CONFIG, {"pixel": tiny_world}, tracer=SpanTracer(spans, every=1000)) as server:
        async with raw_client(server.url, hello()) as client:
            await client.play(2)
            ticket = client.welcome.resume_ticket
        assert ticket is not None
        async with raw_client(server.url, hello(resume=Resume(ticket=ticket))) as again:
            await again.play(1)
        assert not named(spans, "session")
    (session,) = named(spans, "session")
    assert attributes(session)["session.id"] == again.welcome.session
    assert attributes(session)["lightcone.generation"] == 1


@pytest.mark.parametrize("part", ["step", "decode"])
async def test_a_tick_that_fails_is_traced_with_its_failure(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(ModelRunner, part)

    def fail(runner: ModelRunner, inputs: object, slots: list[int]) -> object:
        if slots == [runner.preview_slot]:  # a preview, which is not a tick
            return real(runner, inputs, slots)
        raise RuntimeError("the model is broken")

    spans = InMemorySpanExporter()
    with serve(CONFIG, {"pixel": tiny_world}, tracer=SpanTracer(spans, every=1)) as server:
        monkeypatch.setattr(ModelRunner, part, fail)
        async with raw_client(server.url, hello()) as client:
            await client.close_code()
    tick = named(spans, "tick")[0]
    assert tick.status.status_code is StatusCode.ERROR
    failed = parts_of(spans, tick)[-1]
    assert (failed.name, failed.status.status_code) == (part, StatusCode.ERROR)
    assert failed.events[0].name == "exception"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bytes]]]:
    """A collector that the standard variables point to; yields what it received: (path, body)."""
    received: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{http.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield received
        http.shutdown()
        thread.join()


def test_spans_are_sent_to_the_collector_in_the_standard_variables(
    collector: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-worlds")
    tracer = open_tracer(replace(CONFIG, trace=True))
    tracer.admitted("a session", "pixel", 0)
    tracer.left("a session")
    tracer.close()
    ((path, body),) = collector
    assert path == "/v1/traces"
    assert b"a session" in body
    assert b"our-worlds" in body


def test_a_collector_that_does_not_answer_does_not_delay_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, ended = threading.Event(), threading.Event()

    class Stuck(InMemorySpanExporter):
        def shutdown(self) -> None:
            assert may_end.wait(30)
            ended.set()

    monkeypatch.setattr(tracing, "FLUSH_TIMEOUT_S", 0.05)
    SpanTracer(Stuck(), every=1).close()
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(30)


def test_opentelemetry_is_not_loaded_unless_requested() -> None:
    """FastAPI may load OpenTelemetry's API by itself, but the SDK and the exporter must not be loaded."""
    program = """
import sys
from server.http.app import create_app
from server.config import ServerConfig
import server.http.process, server.cli.serve
create_app(ServerConfig(), {})
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_one_file_of_the_server_imports_opentelemetry() -> None:
    imports = re.compile(r"^\s*(import|from) opentelemetry", re.MULTILINE)
    assert [f.name for f in (ROOT / "server").rglob("*.py") if imports.search(f.read_text(encoding="utf-8"))] == [
        "tracing.py"
    ]


@pytest.mark.parametrize(
    "missing", ["opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk.trace"]
)
def test_if_it_is_not_installed_the_error_names_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=re.escape("lightcone[trace]")):
        create_app(replace(CONFIG, trace=True), {})
