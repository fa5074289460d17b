"""The process that compiles. Owns its life and its priority; what it compiles, it is told.

It reads one part per line of standard input and answers each with one line (JSON both ways). When standard input ends,
it ends at once, with the compilers that it runs: so it never outlives the process that started it, however that one
ends. Processes start it with `COMMAND`, in a session of its own.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO, Any

COMMAND = (sys.executable, "-P", "-c", "import os; os.nice(19); from server.compilation import worker; worker.main()")
"""The priority comes first: importing torch takes seconds. -P: modules in the current folder are not ours."""


def main() -> None:
    """Work until standard input ends."""
    give_way()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    serve(sys.stdin, answers, end=_end, make=make)


def serve(jobs: IO[str], answers: IO[str], *, end: Callable[[], None], make: Callable[..., None]) -> None:
    """Make each part of `jobs` and answer; call `end` from another thread as soon as `jobs` ends."""
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in jobs:
            waiting.put(line)
        waiting.put(None)
        end()

    threading.Thread(target=read, name="lightcone-jobs", daemon=True).start()
    while (line := waiting.get()) is not None:
        answer: dict[str, Any] = {}
        try:
            make(**json.loads(line))
        except Exception as exc:  # noqa: BLE001  # whatever a compiler raises is the answer
            answer["error"] = f"{type(exc).__name__}: {exc}"
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def make(*, folder: str, dtype: str, batch: int) -> None:
    """Compile one part (see `server.compilation.parts.Part`) into the cache, unless it is there."""
    import torch

    from server.compilation.parts import ATTENTION
    from world.runtime.native_attention import make_native_attention
    from world.runtime.packages import compile_packages

    if batch == ATTENTION:
        make_native_attention(getattr(torch, dtype))
    else:
        compile_packages(_network(folder, dtype), [batch])


@cache
def _network(folder: str, dtype: str) -> Any:
    import torch

    from world.checkpoint import World

    return World.load(Path(folder), dtype=getattr(torch, dtype), device="cpu").transformer


def give_way() -> None:
    """Take processor time only when nobody else wants it. Compilers that this process runs inherit that."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    if hasattr(os, "SCHED_IDLE"):  # Linux; also the lowest priority for the disk
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _end() -> None:
    if os.getpgrp() == os.getpid():  # then the group is this process and its compilers
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
