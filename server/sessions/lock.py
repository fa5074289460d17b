"""The one lock of an engine, which knows its owner. Owns nothing else; what it guards is said where it is asserted.

Every method that relies on the lock begins with `lock.assert_held()`, so that a forgotten `with lock:` fails at its
first call instead of once in a thousand.
"""

from __future__ import annotations

import threading
from types import TracebackType


class EngineLock:
    """A reentrant lock with a condition to wait for: it guards the session registry and all sessions of an engine."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.RLock())
        self._owner: int | None = None  # a thread reads its own identifier here only if it wrote it
        self._depth = 0

    def __enter__(self) -> None:
        self._condition.acquire()
        self._owner = threading.get_ident()
        self._depth += 1

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._condition.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Release the lock, wait for a notification and take it again. Return False after `timeout_s` without one."""
        self.assert_held()
        depth, self._owner, self._depth = self._depth, None, 0
        try:
            return self._condition.wait(timeout_s)
        finally:
            self._owner, self._depth = threading.get_ident(), depth

    def notify(self) -> None:
        """Wake one waiting thread."""
        self.assert_held()
        self._condition.notify()

    def notify_all(self) -> None:
        """Wake all waiting threads."""
        self.assert_held()
        self._condition.notify_all()

    def assert_held(self) -> None:
        """Raise AssertionError unless the calling thread holds the lock."""
        if self._owner != threading.get_ident():
            raise AssertionError("the engine's lock is not held by this thread; call this inside `with lock:`")
