"""An event loop on a thread of its own, for callers without one. Owns the thread, and what happens to calls that it can
no longer answer."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from lightcone_client.errors import ConnectionLostError, UsageError

_T = TypeVar("_T")


class LoopThread:
    """An event loop running on a daemon thread of this process. Any thread may call it, until `stop`."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_stopped = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lightcone-client", daemon=True)
        self._thread.start()

    @property
    def is_inherited(self) -> bool:
        """Return whether this process was forked from the one of the loop, and has only a copy of it."""
        return os.getpid() != self._pid

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop and return its result; an interrupt of the caller cancels it.

        Raises UsageError in a forked process and on the loop's own thread, and ConnectionLostError after `stop`.
        """
        try:
            future = self._submit(coroutine)
        except BaseException:
            coroutine.close()
            raise
        try:
            return future.result()
        except CancelledError as exc:
            raise ConnectionLostError(None, "the session was closed") from exc
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel the calls under way, stop the loop and join its thread. Does nothing in a forked process, whose copy
        of the loop shares its sockets with this one."""
        if self.is_inherited:
            return
        with self._lock:
            self._is_stopped = True
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        if self.is_inherited:
            raise UsageError(
                f"this session belongs to process {self._pid}, and this is {os.getpid()}: open one after the fork"
            )
        if threading.current_thread() is self._thread:
            raise UsageError("a callback of the session cannot call the session: it would wait for itself")
        with self._lock:
            if self._is_stopped:
                raise ConnectionLostError(None, "the session was closed")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
