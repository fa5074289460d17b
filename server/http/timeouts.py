"""How long an HTTP request may take to arrive. uvicorn waits for ever, so clients that open connections and send a byte
now and then could use up all connections of the process. Knows no WebSockets; their timeouts are in `connection`.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class RequestTimeoutProtocol(H11Protocol):
    """uvicorn's HTTP protocol, but a connection without a complete request is closed after `timeout_s`."""

    timeout_s = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is None and self._awaits_request:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
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


def request_timeout_protocol(timeout_s: float) -> type[RequestTimeoutProtocol]:
    """Return the protocol class for uvicorn's `http` setting."""
    return type("RequestTimeoutProtocol", (RequestTimeoutProtocol,), {"timeout_s": timeout_s})
