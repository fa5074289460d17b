"""The FastAPI application: `/v1/stream` is the WebSocket, `/` the built page; the other routes are in `routes`.

Owns the engine's start and stop, and everything that touches a WebSocket. Knows no models; the engine has them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles

from server.config import ServerConfig
from server.engine.engine import Engine
from server.engine.model_runner import WorldLoader
from server.errors import BadMessageError, RateLimitedError, ServerError
from server.http.budgets import Budgets
from server.http.connection import serve_connection
from server.http.connection_limits import ConnectionLimits
from server.http.routes import add_get, add_routes
from server.http.scope import ChargeRequests, meter_of
from server.telemetry.tracing import Tracer, open_tracer
from server.wire.origin import check_origin
from server.wire.transport import DisconnectedError, refuse
from world.runtime.tuning import tuned

PAGE_POLICY = "default-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
NO_PAGE = """The page is not built: {dist} has no index.html.
Build it with `npm --prefix clients/web ci && npm --prefix clients/web run build`, or restore clients/web/dist.
The stream at /v1/stream works without it.
"""


class SocketTransport:
    """A Starlette WebSocket as a `server.wire.transport.Transport`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> bytes:
        """Return the next binary message. Raises BadMessageError for a text message, and RateLimitedError if the server
        has cut the connection off."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            meter = meter_of(self._socket.scope)
            if meter is not None and meter.is_cut:
                raise RateLimitedError("your address costs the server too much; send less")
            raise DisconnectedError
        data: bytes | None = message.get("bytes")
        if data is None:
            raise BadMessageError("received a text message; send MessagePack in binary messages")
        return data

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (WebSocketDisconnect, RuntimeError) as exc:  # Starlette raises RuntimeError after a close
            raise DisconnectedError from exc

    async def close(self, code: int, reason: str) -> None:
        try:
            await self._socket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError) as exc:
            raise DisconnectedError from exc


def create_app(
    config: ServerConfig, worlds: Mapping[str, WorldLoader | Path] | None = None, tracer: Tracer | None = None
) -> FastAPI:
    """Return the application that serves `worlds` (loaders or checkpoint folders by name; by default the config's).

    Its start-up starts an engine (`app.state.engine`), which loads and warms the worlds in the background. tracer: by
    default the one that the config selects. Raises ConfigError if OpenTelemetry is needed and not installed.
    """
    loaders = {name: _loader(world, config.num_threads) for name, world in (worlds or config.worlds).items()}
    tracer = tracer or open_tracer(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = Engine(config, loaders, tracer)
        app.state.engine = engine
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)

    app = FastAPI(title="Lightcone", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.config = config
    app.state.connection_limits = ConnectionLimits(config, time.monotonic)
    app.state.budgets = Budgets(config, time.monotonic)
    app.add_middleware(ChargeRequests)
    app.add_api_websocket_route("/v1/stream", _stream)
    add_routes(app)
    _add_page(app, config.web_dist)
    return app


async def _stream(socket: WebSocket) -> None:
    config: ServerConfig = socket.app.state.config
    engine: Engine = socket.app.state.engine
    connection_limits: ConnectionLimits = socket.app.state.connection_limits
    transport = SocketTransport(socket)
    await socket.accept()
    try:
        host_header = socket.headers.get("host", "")
        check_origin(socket.headers.get("origin"), host_header, config.allowed_origins, config.allowed_hosts)
        permit = connection_limits.connect(socket.client.host if socket.client else "", meter_of(socket.scope))
    except ServerError as error:
        engine.metrics.refusals.labels(error.code).inc()
        await refuse(transport, error)
        return
    ended = None
    try:
        ended = await serve_connection(transport, engine, config, permit)
    finally:
        permit.release(ended)
        if ended is not None:
            engine.metrics.refusals.labels(ended.code).inc()


def _add_page(app: FastAPI, dist: Path) -> None:
    if (dist / "index.html").is_file():
        app.mount("/", _Page(directory=dist, html=True))
        return

    async def no_page() -> Response:
        return PlainTextResponse(NO_PAGE.format(dist=dist), status_code=503)

    add_get(app, "/", no_page)


class _Page(StaticFiles):
    """The built page. Browsers may cache the assets for ever, since their names contain a hash, but not the page."""

    async def get_response(self, path: str, scope: Any) -> Response:
        response = await super().get_response(path, scope)
        is_hashed = path.startswith("assets/")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_hashed else "no-cache"
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _loader(world: WorldLoader | Path, num_threads: int | None) -> WorldLoader:
    return partial(tuned, world, num_threads=num_threads) if isinstance(world, Path) else world
