"""Processes that keep cores busy, to measure beside them. Owns their start and their certain end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

SPIN = """
import os, sys
sys.stdout.write("b")
sys.stdout.flush()
while os.getppid() == {parent}:
    for _ in range(100_000):
        pass
"""


@contextmanager
def busy_processes(number: int) -> Iterator[list[int]]:
    """Run `number` processes that compute all the time; yield their ids once all do. They end with the block, and if
    this process is killed. Raises OSError if they cannot be started."""
    with ExitStack() as stack:
        processes = []
        for _ in range(number):
            command = [sys.executable, "-I", "-S", "-c", SPIN.format(parent=os.getpid())]
            process = stack.enter_context(
                subprocess.Popen(  # noqa: S603  # this Python, with the program above
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them
                )
            )
            stack.callback(process.kill)  # before the wait that ends the process's own block
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            if not process.stdout.read(1):
                raise OSError("a busy process ended at once")
        yield [process.pid for process in processes]
