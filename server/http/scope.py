"""From a connection's protocol to the application: the meter, as an item of the ASGI scope, and what a request costs.

Owns the refusal of requests that an address cannot afford.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from server.http.budgets import REQUEST, STREAM, Meter

Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Any, Any], Awaitable[None]]

protocol_logger = logging.getLogger(f"{__name__}.protocol")
protocol_logger.setLevel(logging.ERROR)  # a line for whatever a client does would let it fill the log

METER = "lightcone.meter"
WAIT = b"Your address asks for too much; wait a few seconds.\n"


def with_meter(app: Any, meter: Meter) -> Any:
    """Return the application with `meter` in the scope of every call."""

    async def metered(scope: Scope, receive: Any, send: Any) -> None:
        scope[METER] = meter
        await app(scope, receive, send)

    return metered


def meter_of(scope: Scope) -> Meter | None:
    """Return the meter of a request's connection; None if the application runs in another server than ours."""
    meter: Meter | None = scope.get(METER)
    return meter


class ChargeRequests:
    """Middleware that charges each request to the address it comes from, and answers 429 if that cannot afford it.

    It stands behind uvicorn's handling of `X-Forwarded-For`, so behind a trusted proxy every player has a budget.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        meter = meter_of(scope)
        if meter is not None and scope["type"] in ("http", "websocket"):
            if scope.get("client"):
                meter.identify(scope["client"][0])
            is_stream = scope["type"] == "websocket"
            if not meter.afford(STREAM if is_stream else REQUEST):
                await _refuse(send, "websocket.http.response" if is_stream else "http.response")
                return
        await self._app(scope, receive, send)


async def _refuse(send: Any, kind: str) -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(WAIT)).encode()),
        (b"retry-after", b"2"),
        (b"connection", b"close"),
    ]
    await send({"type": f"{kind}.start", "status": 429, "headers": headers})
    await send({"type": f"{kind}.body", "body": WAIT})
