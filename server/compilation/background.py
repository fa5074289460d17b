"""Compiling in the background: the thread that has parts compiled one by one and loads what is finished. Owns the child
process and the progress; what new code is good for is decided by who receives it.

Whatever fails costs nothing but speed: a failure is one warning, and the server's next start goes on where this one
ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from server.compilation.parts import ATTENTION, Part, next_part
from server.compilation.worker import COMMAND
from world.errors import CompilationError
from world.runtime.packages import check_compiler

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A child process that compiles (`server.compilation.worker`)."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,  # of its own, to be ended at once; in this session, where Linux compares priorities
        )

    def make(self, part: Part) -> None:
        """Have a part compiled, and wait for it. Raise CompilationError."""
        job = {"folder": str(part.folder.resolve()), "dtype": part.dtype, "batch": part.batch}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):  # ValueError: closed already
            answer = ""
        if not answer:
            raise CompilationError(f"the compiling process ended (exit code {self._process.poll()})")
        if error := json.loads(answer).get("error"):
            raise CompilationError(error)

    def kill(self) -> None:
        """End the process and its compilers at once, from any thread; a `make` that waits raises then."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the process and its compilers, and release what belongs to them."""
        self.kill()
        self._process.communicate()


class BackgroundCompilation:
    """Compiles `parts` one after the other.

    ready: parts that are compiled already, to be loaded first. order: the served worlds. played(): which of them are
    played now; they come first. on_part(part): called on this object's thread for each part that can be loaded; may
    raise CompilationError.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        order: Sequence[str],
        played: Callable[[], Collection[str]],
        on_part: Callable[[Part], None],
        new_worker: Callable[[], Worker] | None = None,
        ready: Sequence[Part] = (),
    ) -> None:
        self._ready = ready
        self._parts, self._order, self._played, self._on_part = list(parts), order, played, on_part
        self._new_worker = new_worker or Worker
        self._worker: Worker | None = None
        self._num_parts = len(parts)
        self._problem: str | None = None
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lightcone-compile", daemon=True)

    @property
    def num_parts_left(self) -> int:
        """Return how many parts are not compiled yet."""
        return len(self._parts)

    @property
    def status(self) -> str:
        """Return the progress in words: "compiling 3 of 8", "compiled", or why not."""
        if (left := len(self._parts)) and self._thread.is_alive():
            return f"compiling {self._num_parts - left + 1} of {self._num_parts}"
        return self._problem or "compiled"

    def start(self) -> None:
        """Begin; return at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the child process and the thread."""
        self._is_stopping.set()
        if (worker := self._worker) is not None:
            worker.kill()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        for part in self._ready:
            if self._is_stopping.is_set():
                return
            try:
                self._on_part(part)
            except Exception as exc:  # noqa: BLE001  # whatever loading raises, the others are loaded
                logger.warning("%s is compiled and not used: %s: %s", part.title, type(exc).__name__, exc)
        if not self._parts:
            return
        try:
            check_compiler()
        except CompilationError as exc:
            self._problem = "no C++ compiler"
            logger.info("nothing is compiled in the background: %s", exc)
            return
        logger.info("compiling %d parts for this machine in the background", self._num_parts)
        try:
            self._compile_all()
        except Exception as exc:  # noqa: BLE001  # whatever compiling or loading raises, it costs nothing but speed
            self._fail(exc)
        if self._problem is None and not self._is_stopping.is_set():
            logger.info("compiled everything for this machine in %.0f s", time.monotonic() - began)

    def _compile_all(self) -> None:
        self._worker = self._new_worker()
        try:
            while self._parts and not self._is_stopping.is_set():
                part = next_part(self._parts, self._order, self._played())
                try:
                    self._make(part)
                except CompilationError as exc:
                    if part.batch != ATTENTION:
                        raise
                    self._fail(exc)  # the network can be compiled all the same
                self._parts.remove(part)
        finally:
            self._worker.end()

    def _make(self, part: Part) -> None:
        assert self._worker is not None
        began = time.monotonic()
        self._worker.make(part)
        self._on_part(part)
        position = self._num_parts - len(self._parts) + 1
        logger.info("compiled %s in %.0f s (%d of %d)", part.title, time.monotonic() - began, position, self._num_parts)

    def _fail(self, exc: Exception) -> None:
        if self._is_stopping.is_set():
            return
        level = logging.WARNING if self._problem is None else logging.DEBUG
        self._problem = "failed; the log says why"
        logger.log(level, "compiling in the background failed; the next start tries again: %s", exc)
