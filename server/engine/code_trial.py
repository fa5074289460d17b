"""Trials of new machine code beside the game: timed in steps of sessions of nobody against the code in use, and used
from then on if it is faster. Owns the measurement and the switch; runs on the model thread, one step at a time."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from server.engine.model_runner import ModelRunner, OnThread
from server.engine.timed_sessions import TimedSessions
from world.rollout.rollout import Rollout
from world.runtime.ahead_of_time import CompiledTransformer
from world.runtime.packages import Packages

logger = logging.getLogger(__name__)

REPEATS = 5
"""Timed steps with each code, in turns, after one each that is not timed."""

Steps = Generator[None, None, None]
"""A trial in parts of one step each."""


class NewCode(Protocol):
    """Code that a world does not use yet. batch: the sessions of a step that it is tried with. num_threads: what these
    steps use."""

    runner: ModelRunner
    batch: int
    num_threads: int

    @contextmanager
    def tried(self, rollout: Rollout) -> Iterator[None]:
        """Use it inside, for steps of `rollout` only."""
        ...

    def adopt(self) -> Sequence[int]:
        """Use it from now on. Return the batch sizes for which steps may take another time now, beside `batch`."""
        ...


class NewPackages:
    """The network as machine code for one batch size."""

    def __init__(self, runner: ModelRunner, batch: int, packages: Packages) -> None:
        self.runner, self.batch, self.num_threads = runner, batch, runner.likely_threads(batch)
        self._packages = packages

    @contextmanager
    def tried(self, rollout: Rollout) -> Iterator[None]:
        compiled = self._compiled()
        compiled.add(self.batch, self._packages)
        try:
            yield
        finally:
            compiled.remove(self.batch)

    def adopt(self) -> Sequence[int]:
        self._compiled().add(self.batch, self._packages)
        return ()

    def _compiled(self) -> CompiledTransformer:
        world = self.runner.world
        if not isinstance(world.compiled, CompiledTransformer):
            world.compiled = CompiledTransformer(world.transformer)
        return world.compiled


class NewAttention:
    """Attention as machine code; the library is loaded already."""

    batch = 1

    def __init__(self, runner: ModelRunner) -> None:
        self.runner, self.num_threads = runner, runner.likely_threads(self.batch)

    @contextmanager
    def tried(self, rollout: Rollout) -> Iterator[None]:
        rings = rollout.arena.rings
        rollout.arena.rings = replace(rings, kernel_choice=replace(rings.kernel_choice, native_attention=True))
        try:
            yield
        finally:
            rollout.arena.rings = rings

    def adopt(self) -> Sequence[int]:
        self.runner.use_native_attention()
        return range(2, self.runner.max_batch + 1)


def trial(name: str, code: NewCode, on_decode_thread: OnThread) -> Steps:
    """Time steps with the code in use and with the new one in turns; adopt the new one if it is faster, and tell the
    runner what steps take then. name: the world's, for the log."""
    runner = code.runner
    old_ms, new_ms = yield from _times(code)
    logger.info("%s: a step of %d takes %.1f ms with the new code, %.1f without", name, code.batch, new_ms, old_ms)
    if new_ms >= old_ms:
        return
    others = code.adopt()
    runner.compare_threads_again()
    on_decode_thread(partial(runner.note_step, code.batch, new_ms, code.num_threads))
    for batch in others:
        sessions, times = _sessions(runner, batch), []
        yield
        number = runner.likely_threads(batch)
        for _ in range(1 + REPEATS):
            times.append(sessions.step_ms(number))
            yield
        on_decode_thread(partial(runner.note_step, batch, min(times[1:]), number))


def _times(code: NewCode) -> Generator[None, None, tuple[float, float]]:
    """Return the milliseconds of a step without and with the new code."""
    sessions = _sessions(code.runner, code.batch)
    yield
    old_ms, new_ms = [], []
    for _ in range(1 + REPEATS):
        old_ms.append(sessions.step_ms(code.num_threads))
        yield
        with code.tried(sessions.rollout):
            new_ms.append(sessions.step_ms(code.num_threads))
        yield
    return min(old_ms[1:]), min(new_ms[1:])


def _sessions(runner: ModelRunner, batch: int) -> TimedSessions:
    assert runner.sample is not None
    return TimedSessions(runner.world, runner.sample, batch)
