"""What can go wrong, as one tree. Owns no behaviour.

LightconeClientError
├── ConnectionFailedError   no connection could be made, or none in time
├── RefusedError            the server said no: `code` is one of the protocol's error codes
├── ConnectionLostError     the connection ended; `close_code` says how (RFC 6455 section 7.4.1)
└── ProtocolError           the server sent something this client cannot read
"""

from __future__ import annotations


class LightconeClientError(Exception):
    """Base of every error of this package."""


class ConnectionFailedError(LightconeClientError):
    """No connection could be made, or none in time."""


class RefusedError(LightconeClientError):
    """The server said no. After a `fatal` refusal the connection is closed."""

    def __init__(self, code: str, message: str, *, fatal: bool, seq: int | None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.fatal = fatal
        self.seq = seq


class ConnectionLostError(LightconeClientError):
    """The connection ended."""

    def __init__(self, close_code: int | None, reason: str) -> None:
        super().__init__(f"the connection ended (close code {close_code}, {reason or 'no reason given'})")
        self.close_code = close_code
        self.reason = reason


class ProtocolError(LightconeClientError):
    """The server sent something this client cannot read."""
