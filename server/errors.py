"""The server's errors: one tree, each with its code on the wire.

    ServerError                 any error that a client is sent as `error{code, message}`
    ├── BadMessageError         the bytes are not a message of this protocol
    ├── BadVersionError         the client speaks another protocol version
    ├── UnknownWorldError       no world of that name is served here
    ├── UnknownStartError       the world has no such start
    ├── UnknownFrameError       the session cannot go back to this frame
    ├── UnknownBranchError      no branch has this ticket, or it has expired
    ├── UnknownTicketError      no session has this ticket, or it has expired
    ├── TakenOverError          another connection has taken over the session
    ├── IdleError               the client has sent nothing for too long
    ├── BadActionError          a button or axis the world does not have
    ├── UnsupportedError        a message or option this server does not offer
    ├── ImageTooLargeError      an uploaded picture over the size limit
    ├── BadImageError           an uploaded picture that cannot be read
    ├── BadStateError           an uploaded session that cannot be continued here
    ├── MessageTooLargeError    a message over the size limit
    ├── TooManyPendingError     more pending messages than the server keeps for one session
    ├── RateLimitedError        more messages per second than one client may send
    ├── ServerFullError         all slots and all places in the queue are taken
    ├── TooManyConnectionsError one address or token has too many connections, or connects too often
    ├── UnauthorizedError       the server requires a token, and it is missing or wrong
    ├── OriginRefusedError      the page that opened the socket is not on the allow-list
    ├── HandshakeTimeoutError   no `hello` arrived in time
    ├── NotReadyError           the worlds are still loading
    │   └── StoreUnavailableError   the file of stored sessions cannot be read
    ├── ShuttingDownError       the server is stopping
    └── InternalError           a fault of the server; the details are in its log, never on the wire
    ConfigError                 a setting with which the server cannot start (never crosses the wire)
    ModelFailedError            a world failed in play; the process must be started again (never crosses the wire)

Owns: codes, close codes and messages. Does not know: sockets, sessions or models.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """All values of `code` in an `error` message."""

    BAD_MESSAGE = "bad_message"
    BAD_VERSION = "bad_version"
    UNKNOWN_WORLD = "unknown_world"
    UNKNOWN_START = "unknown_start"
    UNKNOWN_FRAME = "unknown_frame"
    UNKNOWN_BRANCH = "unknown_branch"
    UNKNOWN_TICKET = "unknown_ticket"
    TAKEN_OVER = "taken_over"
    IDLE = "idle"
    BAD_ACTION = "bad_action"
    UNSUPPORTED = "unsupported"
    IMAGE_TOO_LARGE = "image_too_large"
    BAD_IMAGE = "bad_image"
    BAD_STATE = "bad_state"
    MESSAGE_TOO_LARGE = "message_too_large"
    TOO_MANY_PENDING = "too_many_pending"
    RATE_LIMITED = "rate_limited"
    SERVER_FULL = "server_full"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    UNAUTHORIZED = "unauthorized"
    ORIGIN_REFUSED = "origin_refused"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    NOT_READY = "not_ready"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


class CloseCode(IntEnum):
    """The WebSocket close codes this server uses (RFC 6455 section 7.4.1 and the IANA registry)."""

    NORMAL = 1000
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013


class ServerError(Exception):
    """An error with a code on the wire. A `fatal` one closes the connection with `close_code`; others leave it open."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL
    fatal: ClassVar[bool] = True
    close_code: ClassVar[CloseCode] = CloseCode.POLICY


class BadMessageError(ServerError):
    """The bytes are not a message of this protocol."""

    code = ErrorCode.BAD_MESSAGE


class BadVersionError(ServerError):
    """The client speaks another protocol version."""

    code = ErrorCode.BAD_VERSION


class UnknownWorldError(ServerError):
    """No world of that name is served here."""

    code = ErrorCode.UNKNOWN_WORLD


class UnknownStartError(ServerError):
    """The world has no start of that index."""

    code = ErrorCode.UNKNOWN_START
    fatal = False


class UnknownFrameError(ServerError):
    """The session cannot go back to this frame: it is too old, not generated yet, or not the last of its chunk."""

    code = ErrorCode.UNKNOWN_FRAME
    fatal = False


class UnknownBranchError(ServerError):
    """No branch has this ticket, or it has expired."""

    code = ErrorCode.UNKNOWN_BRANCH
    fatal = False


class UnknownTicketError(ServerError):
    """No session has this ticket, or it has expired. Not the client's fault: the server may have been replaced."""

    code = ErrorCode.UNKNOWN_TICKET
    close_code = CloseCode.TRY_LATER


class TakenOverError(ServerError):
    """Another connection has taken over the session."""

    code = ErrorCode.TAKEN_OVER
    close_code = CloseCode.NORMAL


class IdleError(ServerError):
    """The client has sent nothing for too long; its session is kept for a while."""

    code = ErrorCode.IDLE
    close_code = CloseCode.NORMAL


class BadActionError(ServerError):
    """A button or axis the world does not have, or a value out of range."""

    code = ErrorCode.BAD_ACTION
    fatal = False


class UnsupportedError(ServerError):
    """A message or option of the protocol that this server does not offer."""

    code = ErrorCode.UNSUPPORTED
    fatal = False


class ImageTooLargeError(ServerError):
    """An uploaded picture over the size limit, in bytes or in pixels."""

    code = ErrorCode.IMAGE_TOO_LARGE
    fatal = False


class BadImageError(ServerError):
    """An uploaded picture that cannot be read."""

    code = ErrorCode.BAD_IMAGE
    fatal = False


class BadStateError(ServerError):
    """An uploaded session that is damaged, or of another world or checkpoint."""

    code = ErrorCode.BAD_STATE
    fatal = False


class MessageTooLargeError(ServerError):
    """A message over the size limit."""

    code = ErrorCode.MESSAGE_TOO_LARGE
    close_code = CloseCode.TOO_BIG


class TooManyPendingError(ServerError):
    """More pending messages than the server keeps for one session; the last one was dropped."""

    code = ErrorCode.TOO_MANY_PENDING
    fatal = False


class RateLimitedError(ServerError):
    """More messages per second than one client may send."""

    code = ErrorCode.RATE_LIMITED


class ServerFullError(ServerError):
    """All slots and all places in the queue are taken."""

    code = ErrorCode.SERVER_FULL
    close_code = CloseCode.TRY_LATER


class TooManyConnectionsError(ServerError):
    """One address or token has too many connections, or connects too often."""

    code = ErrorCode.TOO_MANY_CONNECTIONS
    close_code = CloseCode.TRY_LATER


class UnauthorizedError(ServerError):
    """The server requires a token, and the client sent none or an unknown one."""

    code = ErrorCode.UNAUTHORIZED


class OriginRefusedError(ServerError):
    """The page that opened the socket is not on the allow-list."""

    code = ErrorCode.ORIGIN_REFUSED


class HandshakeTimeoutError(ServerError):
    """No `hello` arrived in time."""

    code = ErrorCode.HANDSHAKE_TIMEOUT


class NotReadyError(ServerError):
    """The worlds are still loading."""

    code = ErrorCode.NOT_READY
    close_code = CloseCode.TRY_LATER


class StoreUnavailableError(NotReadyError):
    """Stored sessions cannot be read just now: their file is full, locked or damaged."""


class ShuttingDownError(ServerError):
    """The server is stopping."""

    code = ErrorCode.SHUTTING_DOWN
    close_code = CloseCode.RESTART


class InternalError(ServerError):
    """A fault of the server; the log has the details, the client gets none."""

    code = ErrorCode.INTERNAL
    close_code = CloseCode.INTERNAL


class ConfigError(ValueError):
    """A setting with which the server cannot start."""


class ModelFailedError(RuntimeError):
    """A world failed in play, so that no session's state can be trusted; `__cause__` is what the model raised."""

    def __init__(self, world: str) -> None:
        super().__init__(f"{world} failed and ended all sessions; start the process again (the log has the traceback)")
        self.world = world
