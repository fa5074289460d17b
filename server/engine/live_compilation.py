"""Machine code for a running game: has compiled what this machine lacks, and takes it into use between two ticks. Owns
who does what on which thread; `server.compilation` compiles, `code_trial` decides what is used.

The compiling thread loads finished code; the model thread tries it, in steps that take at most `SHARE` of its time, and
begin when they delay nobody too much (`JobShare`).
"""

from __future__ import annotations

import logging
import time
from collections import deque

from server.admission.session_registry import SessionRegistry
from server.compilation.background import BackgroundCompilation
from server.compilation.parts import ATTENTION, Part, can_be_compiled, missing_parts, unused_parts
from server.config import ServerConfig
from server.engine.code_trial import NewAttention, NewCode, NewPackages, Steps, trial
from server.engine.model_runner import OnThread
from server.engine.world_registry import WorldRegistry
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER
from world.errors import CompilationError
from world.runtime.native_attention import can_have_native_attention, load_native_attention
from world.runtime.packages import load_packages

logger = logging.getLogger(__name__)

SHARE = 0.1
"""The share of the model thread's time for trials, if it has the time."""


class LiveCompilation:
    """What is compiled and tried while an engine's worlds are played.

    registry: tells which worlds are played.
    """

    def __init__(
        self,
        config: ServerConfig,
        worlds: WorldRegistry,
        registry: SessionRegistry,
        lock: EngineLock,
        on_decode_thread: OnThread,
    ) -> None:
        self._config, self._worlds, self._registry, self._lock = config, worlds, registry, lock
        self._on_decode_thread = on_decode_thread
        self._background: BackgroundCompilation | None = None
        self._new_code: deque[tuple[str, NewCode]] = deque()  # guarded by the lock
        self._running: tuple[str, Steps] | None = None
        self._next_step_at = 0.0

    @property
    def status(self) -> str:
        """Return the progress in words: "compiling 3 of 8", "compiled", "off", or why not."""
        return "off" if self._background is None else self._background.status

    @property
    def num_parts_left(self) -> int:
        """Return how many parts are not compiled yet, or could not be."""
        return 0 if self._background is None else self._background.num_parts_left

    def begin(self) -> None:
        """Begin to compile what is missing, once the worlds are loaded; return at once. Called on the model thread."""
        runners = self._worlds.runners
        if not self._config.compiles:
            return
        worlds = {name: runner.world for name, runner in runners.items() if can_be_compiled(runner.world)}
        if not worlds:
            return
        max_batch = next(iter(runners.values())).max_batch
        try:
            parts, ready = missing_parts(worlds, max_batch), unused_parts(worlds, max_batch)
        except OSError as exc:
            logger.warning("nothing is compiled in the background, because the cache cannot be read: %s", exc)
            return
        self._background = BackgroundCompilation(parts, list(worlds), self._played, self._load, ready=ready)
        if parts or ready:
            self._background.start()

    def stop(self) -> None:
        """End the compiling process."""
        if self._background is not None:
            self._background.stop()

    def _played(self) -> set[str]:
        with self._lock:
            return {entry.session.world.name for entry in self._registry.with_slot()}

    def _load(self, part: Part) -> None:
        """Load what was compiled and hand it to the model thread. Called on the compiling thread. Raise
        CompilationError."""
        new_code: list[tuple[str, NewCode]] = []
        if part.batch == ATTENTION:
            if not load_native_attention():
                raise CompilationError("the machine code of attention was compiled and cannot be loaded")
            new_code += [
                (name, NewAttention(runner))
                for name, runner in self._worlds.runners.items()
                if can_have_native_attention(runner.world.dtype) and not runner.world.kernel_choice.native_attention
            ]
        else:
            runner = self._worlds.runner(part.world)
            packages = load_packages(runner.world.transformer, part.batch)
            if packages is None:
                raise CompilationError(f"the code of {part.title} was compiled and cannot be loaded")
            new_code.append((part.world, NewPackages(runner, part.batch, packages)))
        with self._lock:
            self._new_code.extend(new_code)
            self._lock.notify_all()

    # ---- on the model thread

    def due_at(self) -> float:
        """Return when there is a step of a trial to do."""
        self._lock.assert_held()
        return self._next_step_at if self._new_code or self._running is not None else NEVER

    def advance(self) -> None:
        """Do one step of the running trial, or of the next, if it is due."""
        with self._lock:
            if self.due_at() > (now := time.monotonic()):
                return
            if self._running is None:
                name, code = self._new_code.popleft()
                self._running = name, trial(name, code, self._on_decode_thread)
        name, steps = self._running
        try:
            next(steps)
        except StopIteration:
            self._running = None
        except Exception:  # whatever new code raises, players go on with the code that they have
            self._running = None
            logger.warning("%s: new code does not run, and is not used", name, exc_info=True)
        ended = time.monotonic()
        self._next_step_at = ended + (ended - now) * (1 / SHARE - 1)
