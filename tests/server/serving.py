"""A server on loopback sockets inside a test's process. Owns its thread; the rest is `server.http.process`."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from server.admission.tick_times import TickTimes
from server.config import ServerConfig
from server.engine.engine import Engine
from server.engine.model_runner import WorldLoader
from server.http.app import create_app
from server.http.process import Server, listen, url_of, uvicorn_config
from server.telemetry.tracing import Tracer

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """The address of a server, its parts for a look inside, and a function that stops it early."""

    url: str
    port: int
    engine: Engine
    stop: Callable[[], None]
    app: FastAPI
    server: Server


class FixedTimes(TickTimes):
    """Ticks that always take as long as given, for admission."""

    def note(self, size: int, tick_ms: float) -> None:
        pass


def fix_tick_times(engine: Engine, world: str, tick_ms: Mapping[int, float]) -> None:
    """Let admission count with these milliseconds by batch size, whatever ticks take."""
    engine.world_registry.runner(world).tick_times = FixedTimes(tick_ms)


@contextmanager
def serve(
    config: ServerConfig,
    worlds: Mapping[str, WorldLoader | Path],
    *,
    wait_until_ready: bool = True,
    send_buffer_bytes: int | None = None,
    tracer: Tracer | None = None,
) -> Iterator[RunningServer]:
    """Serve on a free loopback port. send_buffer_bytes: the kernel's per connection; small to notice stalls soon."""
    listener = listen("127.0.0.1", 0)
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    app = create_app(config, worlds, tracer)
    server = Server(uvicorn_config(app, config), app, config.goodbye_s)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), name="lightcone-serve")
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        engine: Engine = app.state.engine
        if wait_until_ready:
            engine.ready.wait(START_TIMEOUT_S)
            if engine.failure is not None:
                raise engine.failure
        port = listener.getsockname()[1]
        yield RunningServer(url_of("127.0.0.1", port), port, engine, stop, app, server)
    finally:
        stop()
        listener.close()
