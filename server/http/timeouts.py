"""How long an HTTP request may take to arrive, since uvicorn waits for ever: who opens connections and sends a byte now
and then could hold all that a process may have. Owns that alone; a WebSocket's silence is `connection`'s.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimeoutHttpProtocol(H11Protocol):
    """uvicorn's, but a connection without a whole request is closed after `timeout_s`."""

    timeout_s = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is None and self._is_waiting:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.timeout_s, self._lose_it)

    def _lose_it(self) -> None:
        self._timer = None
        is_ours = self.transport.get_protocol() is self  # after an upgrade it is the WebSocket's
        if is_ours and self._is_waiting and not self.transport.is_closing():
            self.transport.close()


def http_protocol(timeout_s: float) -> type[TimeoutHttpProtocol]:
    """The protocol for uvicorn's `http`."""
    return type("TimeoutHttpProtocol", (TimeoutHttpProtocol,), {"timeout_s": timeout_s})
