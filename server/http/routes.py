"""Plain HTTP around the stream. Owns the routes and what they answer, as `/openapi.json` describes it.

`/v1/worlds` the cards, each with a `/preview` · `/healthz` the process answers · `/readyz` 503 until warm and while it
stops · `/metrics` for Prometheus.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from server.engine.engine import Engine
from server.errors import ServerError, UnknownWorldError
from server.telemetry.metrics import CONTENT_TYPE
from server.wire.frames import encode_animation
from server.wire.protocol import WorldInfo


class Worlds(BaseModel):
    """What is served, the default one first."""

    worlds: list[WorldInfo]


class Ready(BaseModel):
    """How many play, and how many wait for a slot."""

    status: Literal["ready"] = "ready"
    playing: int
    waiting: int


class NotReady(BaseModel):
    """Why nobody can play: ask again after `Retry-After` seconds, but for "failed"."""

    status: Literal["loading", "draining", "failed", "being made"]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class NotFound(BaseModel):
    """What is not here."""

    error: str


NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": NotReady}}
PREVIEW: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}},
    404: {"model": NotFound},
    **NOT_READY,
}


def add_routes(app: FastAPI) -> None:
    """All of them; the engine is `app.state.engine`."""
    app.state.previews = {}  # by world, being encoded or done
    get = partial(app.add_api_route, methods=["GET"])
    get("/v1/worlds", _worlds, response_model=Worlds, responses=NOT_READY)
    get("/v1/worlds/{name}/preview", _preview, response_class=Response, responses=PREVIEW)
    get("/healthz", _healthz, response_model=Alive)
    get("/readyz", _readyz, response_model=Ready, responses=NOT_READY)
    get("/metrics", _metrics, response_class=PlainTextResponse)


async def _worlds(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    if not engine.is_ready:
        return _not_ready(engine)
    return JSONResponse({"worlds": [info.model_dump(mode="json") for info in engine.world_registry.worlds]})


async def _preview(request: Request, name: str) -> Response:
    """Two seconds of a world in motion, as it is made on this machine: an animated WebP."""
    engine: Engine = request.app.state.engine
    try:
        info = engine.info(name)
        frames = engine.world_registry.preview(name)
    except UnknownWorldError as error:
        return JSONResponse({"error": str(error)}, status_code=404)
    except ServerError:
        return _not_ready(engine)
    if frames is None:
        return JSONResponse({"status": "being made"}, status_code=503, headers={"Retry-After": "1"})
    encoded: dict[str, asyncio.Task[bytes]] = request.app.state.previews
    if name not in encoded:
        encoded[name] = asyncio.create_task(asyncio.to_thread(encode_animation, frames, info.fps))
    picture = await asyncio.shield(encoded[name])  # others wait for it too
    return Response(picture, media_type="image/webp", headers={"Cache-Control": "public, max-age=600"})


async def _healthz() -> Response:
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    if not engine.is_ready:
        return _not_ready(engine)
    playing, waiting = engine.num_sessions
    return JSONResponse({"status": "ready", "playing": playing, "waiting": waiting})


async def _metrics(request: Request) -> Response:
    """For Prometheus."""
    engine: Engine = request.app.state.engine
    return Response(engine.metrics.text(), media_type=CONTENT_TYPE)


def _not_ready(engine: Engine) -> Response:
    status = "failed" if engine.failure is not None else "draining" if engine.ready.is_set() else "loading"
    return JSONResponse({"status": status}, status_code=503, headers={"Retry-After": "1"})
