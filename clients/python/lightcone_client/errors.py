"""The error tree of this package. Owns no behaviour.

LightconeClientError
├── ConnectionFailedError   the connection could not be opened, or not in time
├── RefusedError            the server refused a request: `code` is one of the protocol's error codes
├── ConnectionLostError     the connection ended; `close_code` says how (RFC 6455, section 7.4.1)
├── ActionError             an action names a button or axis that the world does not have, or is not finite
├── UsageError              the session is used where it cannot work, such as in a forked process
└── ProtocolError           the server sent a message that this client cannot read
"""

from __future__ import annotations


class LightconeClientError(Exception):
    """Base of every error of this package."""


class ConnectionFailedError(LightconeClientError):
    """The connection could not be opened, or not in time."""


class RefusedError(LightconeClientError):
    """The server refused a request. After a `fatal` refusal the connection is closed."""

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


class ActionError(LightconeClientError, ValueError):
    """An action names a button or axis that the world does not have, or is not finite. Nothing was sent."""


class UsageError(LightconeClientError, RuntimeError):
    """The session is used where it cannot work: in a forked process, in another event loop, or while another call takes
    its frames. Nothing was sent."""


class ProtocolError(LightconeClientError):
    """The server sent a message that this client cannot read."""
