"""One server process from start to end: socket, log, uvicorn and orderly shutdown. Knows no sessions or models.

uvicorn must be newer than 0.51: in 0.51 the messages for a slow client accumulate in memory, because `send` does not
wait until they are written.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from server.config import ServerConfig
from server.engine.engine import Engine
from server.engine.model_runner import WorldLoader
from server.errors import ConfigError, ModelFailedError, ShuttingDownError
from server.http.acceptor import Acceptor, free_descriptors
from server.http.app import create_app
from server.http.budgets import Meter
from server.http.http_protocol import HttpProtocol, http_protocol
from server.http.websocket_protocol import WebSocketProtocol
from server.telemetry.log import set_up_logging

logger = logging.getLogger(__name__)

OLDEST_UVICORN = (0, 52)
READY_POLL_S = 0.02
FAILURE_POLL_S = 0.25
SUSPEND_TIMEOUT_S = 5.0
BACKLOG = 1024  # connections that wait to be accepted while a flood of others is refused
UNREAD_TIMEOUT_MS = 60_000  # then the kernel drops data that a closed connection's client never read


class Server(uvicorn.Server):
    """uvicorn's server, but it accepts connections within limits, and warns the players before it closes theirs."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, goodbye_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._goodbye_s = goodbye_s
        self.acceptor: Acceptor | None = None  # once the server has started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        config, loop = self.config, asyncio.get_running_loop()

        def make_protocol(meter: Meter) -> asyncio.BaseProtocol:
            protocol: HttpProtocol = config.http_protocol_class(  # type: ignore[call-arg, assignment]  # uvicorn's arguments
                config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            protocol.meter = meter
            return protocol

        server_config: ServerConfig = self._app.state.config
        self.acceptor = Acceptor(
            self._app.state.budgets,
            make_protocol,
            max_open=free_descriptors(),
            tls=config.ssl,
            timeout_s=server_config.handshake_timeout_s,
        )
        for listener in sockets or ():
            self.acceptor.listen(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        engine: Engine | None = getattr(self._app.state, "engine", None)  # missing if the start failed
        if engine is not None and engine.failure is not None:
            await asyncio.sleep(self._goodbye_s)  # the clients have their error; nothing can be suspended
        elif engine is not None:
            engine.say_goodbye(self._goodbye_s, ShuttingDownError("the server is stopping; connect again later"))
            await asyncio.sleep(self._goodbye_s)
            deadline = time.monotonic() + SUSPEND_TIMEOUT_S
            while engine.store is not None and any(engine.num_sessions) and time.monotonic() < deadline:
                if engine.failure is not None:  # nothing can be suspended any more
                    break
                await asyncio.sleep(READY_POLL_S)
        if self.acceptor is not None:
            self.acceptor.close()
        await super().shutdown(sockets)


def run(
    config: ServerConfig,
    worlds: Mapping[str, WorldLoader | Path] | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted. Calls `on_ready(url)` once the worlds are warm (default: print the URL).

    Raises ConfigError if the address is not available, whatever loading a world raised, or ModelFailedError if a model
    failed later: the process must be started again then.
    """
    _check_uvicorn()
    set_up_logging(config.log_level, as_json=config.log_json, stream=sys.stderr)
    listener = listen(config.host, config.port)
    url = url_of(config.host, listener.getsockname()[1], secure=config.tls_cert is not None)
    app = create_app(config, worlds)
    server = Server(uvicorn_config(app, config), app, config.goodbye_s)

    async def serve() -> None:
        watcher = asyncio.create_task(watch(app, server, lambda: (on_ready or _print)(url)))
        await server.serve(sockets=[listener])
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        logger.info("interrupted")
    finally:
        listener.close()
    engine: Engine | None = getattr(app.state, "engine", None)
    if engine is not None and engine.failure is not None:
        if engine.failed_world is not None:
            raise ModelFailedError(engine.failed_world) from engine.failure
        raise engine.failure


def uvicorn_config(app: FastAPI, config: ServerConfig) -> uvicorn.Config:
    """Return uvicorn's settings for a stream of small pictures: no compression, small messages, our own logging."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http=http_protocol(config.handshake_timeout_s),
        ws=WebSocketProtocol,
        ws_max_size=config.max_wire_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
    )


def url_of(host: str, port: int, *, secure: bool = False) -> str:
    """Return the address to open in a browser."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else "[::1]" if host == "::" else host  # noqa: S104  # compared, not bound
    return f"http{'s' * secure}://{shown}:{port}"


async def watch(app: FastAPI, server: uvicorn.Server, announce: Callable[[], None]) -> None:
    """Call `announce` when the worlds are warm; stop the server if they cannot be loaded, or fail later."""
    while not hasattr(app.state, "engine") or not app.state.engine.ready.is_set():
        await asyncio.sleep(READY_POLL_S)
    engine: Engine = app.state.engine
    if engine.failure is None:
        gc.collect()
        gc.freeze()  # loaded objects stay; scanning them again at every collection would stop all players for 0.1 s
        try:
            announce()
        except Exception:  # the reader of the output may be gone; the server is ready all the same
            logger.exception("the worlds are warm, but announcing it failed")
    while engine.failure is None:
        await asyncio.sleep(FAILURE_POLL_S)
    server.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 picks a free port. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets whose protocol is given
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT_MS)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({exc.strerror}); choose another port, or 0 for any free one"
        ) from exc
    listener.listen(BACKLOG)
    return listener


def _check_uvicorn() -> None:
    version = tuple(int(part) for part in uvicorn.__version__.split(".")[:2])
    if version < OLDEST_UVICORN:
        raise ConfigError(
            f"uvicorn {uvicorn.__version__} buffers without limit for slow clients; install a release newer than 0.51"
        )


def _print(url: str) -> None:
    sys.stdout.write(f"Lightcone is ready: {url}\n")
    sys.stdout.flush()
