"""uvicorn's HTTP protocol with a meter and a time limit. uvicorn waits for ever for a request, so clients that open
connections and send a byte now and then could use up all connections of the process. Knows no WebSockets; the protocol
of those is `websocket_protocol`.
"""

from __future__ import annotations

import asyncio
from functools import partial

from uvicorn.protocols.http.h11_impl import H11Protocol

from server.http.budgets import BYTES_PER_UNIT, READ, Meter
from server.http.scope import protocol_logger, with_meter
from server.http.websocket_protocol import WebSocketProtocol


class HttpProtocol(H11Protocol):
    """A connection is closed that has no complete request after `timeout_s`, or that its address cannot afford.

    Whoever makes it sets `meter` before the connection is made.
    """

    timeout_s = 10.0
    meter: Meter
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self.meter.end = transport.abort
        self.logger = protocol_logger
        self.app = with_meter(self.app, self.meter)
        self.ws_protocol_class = partial(WebSocketProtocol, meter=self.meter)  # type: ignore[assignment]  # called as a class
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if not self.meter.spend(READ + len(data) / BYTES_PER_UNIT):
            return
        super().data_received(data)
        if self._timer is None and self._awaits_request:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.meter.close()
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _awaits_request(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.timeout_s, self._on_timeout)

    def _on_timeout(self) -> None:
        self._timer = None
        is_http = self.transport.get_protocol() is self  # after an upgrade the WebSocket protocol owns the transport
        if is_http and self._awaits_request and not self.transport.is_closing():
            self.transport.close()


def http_protocol(timeout_s: float) -> type[HttpProtocol]:
    """Return the protocol class for uvicorn's `http` setting."""
    return type("HttpProtocol", (HttpProtocol,), {"timeout_s": timeout_s})
