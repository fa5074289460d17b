"""uvicorn's WebSocket protocol with a meter: frames are counted as they arrive, those of control and fragments too,
which never reach the application as messages. Knows no messages.
"""

from __future__ import annotations

from asyncio.transports import BaseTransport
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from server.errors import CloseCode, ErrorCode
from server.http.budgets import BYTES_PER_UNIT, FRAME, READ, Meter
from server.http.scope import protocol_logger, with_meter

PIECE_BYTES = 1024
"""Bytes that are parsed at once: a read of 256 KiB holds 40,000 pings, which must not be answered before they count."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A connection that its address cannot afford is closed with 1008."""

    def __init__(self, *args: Any, meter: Meter, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.meter = meter
        self.logger = protocol_logger
        self.app = with_meter(self.app, meter)

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.meter.end = self._cut_off

    def connection_lost(self, exc: Exception | None) -> None:
        self.meter.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.meter.spend(READ):
            return
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            if self.transport.is_closing() or not self.meter.spend(len(piece) / BYTES_PER_UNIT):
                return
            super().data_received(piece)

    def handle_cont(self, event: Frame) -> None:
        if self.meter.spend(FRAME):
            super().handle_cont(event)

    def handle_text(self, event: Frame) -> None:
        if self.meter.spend(FRAME):
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if self.meter.spend(FRAME):
            super().handle_bytes(event)

    def handle_ping(self) -> None:
        if self.meter.spend(FRAME):
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self.meter.spend(FRAME):
            super().handle_pong(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            self.frames = [b""]  # refused whatever it says; uvicorn logs a traceback if it is not UTF-8
        super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # or uvicorn logs an error for a handshake that was answered and refused

    def _cut_off(self) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.POLICY, "reason": "rate_limited"})
        if self.handshake_complete and not self.close_sent:
            self.conn.fail(CloseCode.POLICY, ErrorCode.RATE_LIMITED)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self.transport.close()
