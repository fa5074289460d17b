"""Reads a client's messages within the size limits. Owns which messages may be large; knows no connections."""

from __future__ import annotations

from server.errors import BadMessageError, MessageTooLargeError
from server.wire.protocol import ClientMessage, Hello, Start, decode_client


def decode_within(limit: int, data: bytes) -> ClientMessage:
    """Decode a message. Only messages that can carry a picture or a file may exceed `limit` bytes. Raises
    BadMessageError or MessageTooLargeError."""
    try:
        message = decode_client(data)
    except BadMessageError:
        if len(data) <= limit:
            raise
        message = None
    if message is None or (len(data) > limit and not isinstance(message, Hello | Start)):
        raise MessageTooLargeError(f"{len(data)} bytes; only starts with a picture may exceed {limit}")
    return message
