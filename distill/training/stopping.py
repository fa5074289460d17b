"""Stopping between two steps of training. Owns SIGINT and SIGTERM while a loop runs; saves nothing itself.

Between steps everything is consistent, so a signal waits for the end of a step. A step that takes long is left at once
instead, by an exception, if its caller kept a copy of what was before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StepAbandoned(BaseException):
    """A signal came in the middle of a step that may be left. Not an Exception, so that no handler of errors keeps
    it."""


class StopSignal:
    """Notes the first signal that asks the process to stop. Use `held` around a loop."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._may_abandon = False

    @property
    def has_come(self) -> bool:
        return self.number is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the signals back inside the block; after it, raise the one that came as if it came then. Does nothing
        outside the main thread, where Python delivers no signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.number is not None:
            signal.raise_signal(self.number)

    @contextmanager
    def abandoning(self, allowed: bool) -> Iterator[None]:
        """Let a signal raise StepAbandoned inside the block, if `allowed`."""
        self._may_abandon = allowed
        try:
            yield
        finally:
            self._may_abandon = False

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        if self._may_abandon:
            self._may_abandon = False
            raise StepAbandoned
