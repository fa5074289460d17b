"""Work on a slot in parts, so that others can be stepped in between. Owns how a part runs and how all of them run at
once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from world.rollout.step_threads import StepThreads

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _HasThreads(Protocol):
    threads: StepThreads


_S = TypeVar("_S", bound=_HasThreads)


def in_parts(
    method: Callable[Concatenate[_S, _P], Generator[None, None, _T]],
) -> Callable[Concatenate[_S, _P], Generator[None, None, _T]]:
    """Run each part of a generator method without gradients and with the number of threads of a step."""

    @wraps(method)
    def parts(self: _S, *args: _P.args, **kwargs: _P.kwargs) -> Generator[None, None, _T]:
        inner = method(self, *args, **kwargs)
        try:
            while True:
                with torch.inference_mode(), self.threads.like_step(1):
                    try:
                        next(inner)
                    except StopIteration as end:
                        result: _T = end.value
                        return result
                yield
        finally:
            with torch.inference_mode(), self.threads.like_step(1):
                inner.close()

    return parts  # type: ignore[return-value]  # the type checker minds that `self` has a name


def run_to_end(parts: Generator[None, None, _T]) -> _T:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            result: _T = end.value
            return result
