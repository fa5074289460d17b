"""Processes that work for this one and end with it, however it ends. Owns their start and end; knows no work.

Environments bring C libraries that take over signals (SDL) or start processes of their own (ViZDoom). So each worker
leads a process group, and that group is killed as a whole.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""Workers that are forked from this process, which has threads, sometimes wait for ever for Python's lock."""


@contextmanager
def process_pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool. At the end of the block it completes its work; if the block raises, it is killed at once."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context(_START), initializer=_begin)
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            _kill(worker)
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _begin() -> None:
    """Prepare a worker: its own process group, no handlers of its owner, and an end when its owner ends."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with_owner, daemon=True).start()


def _end_with_owner() -> None:
    owner = multiprocessing.parent_process()
    assert owner is not None
    wait([owner.sentinel])
    os.killpg(0, signal.SIGKILL)


def _kill(worker: BaseProcess) -> None:
    """Kill a worker and what it has started."""
    with suppress(ProcessLookupError, PermissionError):  # it has not begun yet, or is gone
        if worker.pid is not None and os.getpgid(worker.pid) == worker.pid:
            os.killpg(worker.pid, signal.SIGKILL)
    worker.kill()
