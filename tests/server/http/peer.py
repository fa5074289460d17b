"""A client that is at liberty to do anything wrong: a blocking socket, and WebSocket frames written by hand."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Literal

from server.errors import BadMessageError
from server.wire.protocol import ServerMessage, decode_server

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
Manner = Literal["close", "reset", "half"]


def client_frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    """Return one masked frame; the mask is zero."""
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + struct.pack("!H", size)
    else:
        length = b"\xff" + struct.pack("!Q", size)
    return bytes([(0x80 * fin) | opcode]) + length + bytes(4) + data


class Peer:
    """One connection. Nothing raises: the server may have closed it at any time."""

    def __init__(self, port: int, source: str = "127.0.0.1", *, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s, source_address=(source, 0))
        self.is_open = True
        self.received = b""
        self._is_upgraded = False

    def write(self, data: bytes) -> bool:
        """Send bytes. Return whether the connection took them."""
        if not self.is_open:
            return False
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def shake_hands(self) -> None:
        """Ask for a stream and wait for the answer, as a client must before it sends more."""
        self.write(HANDSHAKE)
        while b"\r\n\r\n" not in self.received and self.read(1.0):
            pass

    def frame(self, opcode: int, data: bytes = b"", *, fin: bool = True) -> bool:
        return self.write(client_frame(opcode, data, fin=fin))

    def read(self, timeout_s: float) -> bool:
        """Receive what has come, waiting for `timeout_s` if nothing has. Return False at the end."""
        if not self.is_open:
            return False
        self.socket.settimeout(timeout_s)
        try:
            data = self.socket.recv(1 << 20)
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(10.0)
        self.received += data
        return bool(data)

    def until_closed(self, timeout_s: float = 10.0) -> bytes:
        """Receive until the server closes. Return everything that has come; raise TimeoutError if it does not close."""
        self.socket.settimeout(timeout_s)
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(1 << 20):
                self.received += data
        return self.received

    def messages(self) -> list[ServerMessage]:
        """Return the messages of the protocol among what was received since the last call."""
        if not self._is_upgraded:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end or b" 101 " not in head:
                return []
            self._is_upgraded, self.received = True, rest
        found = []
        while (frame := self._take_frame()) is not None:
            opcode, data = frame
            if opcode == BINARY:
                with contextlib.suppress(BadMessageError):
                    found.append(decode_server(data))
        return found

    def _take_frame(self) -> tuple[int, bytes] | None:
        data = self.received
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + size:
            return None
        self.received = data[start + size :]
        return data[0] & 0x0F, data[start : start + size]

    def end(self, manner: Manner = "close") -> None:
        """Close the connection, reset it, or stop sending."""
        with contextlib.suppress(OSError):
            if manner == "half":
                self.socket.shutdown(socket.SHUT_WR)
                return
            if manner == "reset":
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.is_open = False
