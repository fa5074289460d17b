"""Log lines with the session they belong to. Owns the context variable and the two formats; knows no sessions.

`session_key.set(...)` labels everything that is logged afterwards in the same task or thread.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from typing import TextIO

session_key: ContextVar[str] = ContextVar("session_key", default="-")


class _SessionFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.session = session_key.get()
        return True


class _TextFormatter(logging.Formatter):
    """One line per message: control characters are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name that logging calls
        line = super().formatMessage(record)  # its message, and its session if that was resumed, come from a client
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "session": getattr(record, "session", "-"),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(level: str, *, as_json: bool, stream: TextIO) -> None:
    """Send the log of the whole process to `stream`, as text or as one JSON object per line."""
    handler = logging.StreamHandler(stream)
    text = _TextFormatter("%(asctime)s %(levelname)-7s %(name)s [%(session)s] %(message)s")
    handler.setFormatter(_JsonFormatter() if as_json else text)
    handler.addFilter(_SessionFilter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
