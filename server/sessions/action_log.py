"""The input of every chunk of a run, from its start: what replays it. Owns its compact form; knows no time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from server.sessions.input_buffer import Sample
from server.wire.protocol import LoggedInput

Input: TypeAlias = tuple[tuple[str, ...], Mapping[str, float]]
"""Buttons and axes of a chunk."""


@dataclass(slots=True)
class ActionLog:
    """Runs of equal input. `max_entries` bounds it: a longer log is given up, and says so (`complete`)."""

    max_entries: int = 20_000
    complete: bool = True
    num_chunks: int = 0
    _counts: list[int] = field(default_factory=list)
    _inputs: list[Input] = field(default_factory=list)

    def append(self, sample: Sample) -> None:
        """One more chunk, made with this input."""
        self.num_chunks += 1
        if not self.complete:
            return
        what = _input(sample.buttons, sample.axes)
        if self._inputs and self._inputs[-1] == what:
            self._counts[-1] += 1
        elif len(self._counts) < self.max_entries:
            self._counts.append(1)
            self._inputs.append(what)
        else:
            self.complete = False

    def cut(self, num_chunks: int) -> None:
        """Keep the first `num_chunks` chunks."""
        surplus = sum(self._counts) - num_chunks
        while surplus > 0:
            if surplus < self._counts[-1]:
                self._counts[-1] -= surplus
                break
            surplus -= self._counts.pop()
            self._inputs.pop()
        self.complete = self.complete or surplus >= 0  # whole again, if what was given up has been cut off
        self.num_chunks = num_chunks

    def copy(self) -> ActionLog:
        return ActionLog(self.max_entries, self.complete, self.num_chunks, list(self._counts), list(self._inputs))

    def to_data(self) -> dict[str, Any]:
        """Plain values, for `from_data`."""
        return {
            "num_chunks": self.num_chunks,
            "complete": self.complete,
            "counts": list(self._counts),
            "inputs": list(self._inputs),
        }

    @staticmethod
    def from_data(data: dict[str, Any]) -> ActionLog:
        """Raises KeyError, TypeError or ValueError."""
        inputs = [_input(buttons, axes) for buttons, axes in data["inputs"]]
        return ActionLog(
            complete=data["complete"], num_chunks=data["num_chunks"], _counts=list(data["counts"]), _inputs=inputs
        )

    def entries(self) -> tuple[LoggedInput, ...]:
        """As the wire has it."""
        return tuple(
            LoggedInput(num_chunks=count, buttons=buttons, axes=dict(axes))
            for count, (buttons, axes) in zip(self._counts, self._inputs, strict=True)
        )


def _input(buttons: Iterable[str], axes: Mapping[str, float]) -> Input:
    return (tuple(buttons), dict(axes)) if axes else _buttons(tuple(buttons))


@lru_cache(maxsize=1024)
def _buttons(buttons: tuple[str, ...]) -> Input:
    """Always the same object, which nobody changes: a log has thousands of entries, but few buttons to press."""
    return buttons, {}
