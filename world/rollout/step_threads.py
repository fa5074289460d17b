"""The number of threads of a rollout's steps on a CPU. Owns when it is set and how long steps take with it;
`thread_policy` decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from world.device import OtherProcesses, usable_cores
from world.rollout.thread_policy import ThreadPolicy, choices_up_to

MOST_TAKEN = 0.9
"""More threads are not tried while other processes take this much of a core that these would need."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadSettings:
    """How many threads a model's steps use.

    most: what to set for the thread that steps (None: whatever torch has set there). preferred: the numbers to begin
    with, by batch size, if they have been measured. adapts: whether a step may use fewer than are set.
    """

    most: int | None = None
    preferred: Mapping[int, int] = field(default_factory=dict)
    adapts: bool = True

    def choices(self, bound: int) -> tuple[int, ...]:
        """Return the numbers that steps choose from where torch has set `bound`."""
        return choices_up_to(bound) if self.adapts else (bound,)


class StepThreads:
    """How many threads one rollout's steps use, at most `torch.get_num_threads()` of the calling thread, which is as
    before after each step. last: what the last step used."""

    def __init__(self, settings: ThreadSettings, device: torch.device) -> None:
        self._settings = settings
        self._on_cpu = device.type == "cpu"
        self._policies: dict[int, ThreadPolicy] = {}
        self._is_stepping = False
        self._limit: tuple[float, int] | None = None
        self._others = OtherProcesses()
        self.last = torch.get_num_threads()

    def number(self, batch: int) -> int:
        """Return what the next step of `batch` sessions uses on the calling thread."""
        bound = torch.get_num_threads()
        return self._policy(bound).threads(batch) if self._on_cpu else bound

    @contextmanager
    def step(self, batch: int) -> Iterator[None]:
        """Run a step of `batch` sessions, or parts of it, with its number of threads, and note how long it takes."""
        with self.like_step(batch) as policy:
            if policy is None:
                yield
                return
            began = time.perf_counter()
            self.last = torch.get_num_threads()
            if (limit := policy.limit(batch)) is not None:
                self._limit = began + limit[0] / 1e3, limit[1]
            try:
                yield
            finally:
                self._limit = None
            policy.record(batch, (time.perf_counter() - began) * 1e3)
            more = policy.tries_more(batch)
            if more is not None and len(usable_cores()) - self._others.cores() < more - MOST_TAKEN:
                policy.skip_trial(batch)

    def check(self) -> None:
        """Go on with fewer threads if the present step takes too long. Call it now and then during a step."""
        if self._limit is not None and time.perf_counter() > self._limit[0]:
            torch.set_num_threads(self._limit[1])
            self._limit = None

    @contextmanager
    def like_step(self, batch: int) -> Iterator[ThreadPolicy | None]:
        """Compute something else with the number of threads of a step of `batch` sessions. Yield what chose it, or None
        inside of a step."""
        if self._is_stepping or not self._on_cpu:
            yield None
            return
        policy = self._policy(torch.get_num_threads())
        self._is_stepping = True
        try:
            with using_threads(policy.threads(batch)):
                yield policy
        finally:
            self._is_stepping = False

    def forget(self) -> None:
        """Decide anew, because steps have become different (such as compiled)."""
        for policy in self._policies.values():
            policy.forget()

    def _policy(self, bound: int) -> ThreadPolicy:
        if bound not in self._policies:
            self._policies[bound] = ThreadPolicy(self._settings.choices(bound), self._settings.preferred)
        return self._policies[bound]


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Use this number of threads for the calling thread's tensor operations inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _HasThreads(Protocol):
    threads: StepThreads


_S = TypeVar("_S", bound=_HasThreads)


def inference_like_step(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Let a rollout's method run without gradients, with the number of threads of a step of one session."""

    @wraps(method)
    def run(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with torch.inference_mode(), self.threads.like_step(1):
            return method(self, *args, **kwargs)

    return run
