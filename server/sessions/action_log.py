"""The input of every chunk of a run from its start, enough to replay it. Owns the compact form; knows no time."""

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
    """Inputs, equal ones in a row counted. A log of more than `max_entries` stops recording and is not `complete`."""

    max_entries: int = 20_000
    complete: bool = True
    num_chunks: int = 0
    _counts: list[int] = field(default_factory=list)
    _inputs: list[Input] = field(default_factory=list)

    def append(self, sample: Sample) -> None:
        """Record the input of one more chunk."""
        self.num_chunks += 1
        if not self.complete:
            return
        entry = _input(sample.buttons, sample.axes)
        if self._inputs and self._inputs[-1] == entry:
            self._counts[-1] += 1
        elif len(self._counts) < self.max_entries:
            self._counts.append(1)
            self._inputs.append(entry)
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
        self.complete = self.complete or surplus >= 0  # complete again, if the unrecorded part was cut off
        self.num_chunks = num_chunks

    def copy(self) -> ActionLog:
        return ActionLog(self.max_entries, self.complete, self.num_chunks, list(self._counts), list(self._inputs))

    def to_data(self) -> dict[str, Any]:
        """Return plain values for `from_data`."""
        return {
            "num_chunks": self.num_chunks,
            "complete": self.complete,
            "counts": list(self._counts),
            "inputs": list(self._inputs),
        }

    @staticmethod
    def from_data(data: dict[str, Any]) -> ActionLog:
        """Rebuild a log from `to_data`. Raise KeyError, TypeError or ValueError."""
        inputs = [_input(buttons, axes) for buttons, axes in data["inputs"]]
        return ActionLog(
            complete=data["complete"], num_chunks=data["num_chunks"], _counts=list(data["counts"]), _inputs=inputs
        )

    def entries(self) -> tuple[LoggedInput, ...]:
        """Return the entries in the form of the wire."""
        return tuple(
            LoggedInput(num_chunks=count, buttons=buttons, axes=dict(axes))
            for count, (buttons, axes) in zip(self._counts, self._inputs, strict=True)
        )


def _input(buttons: Iterable[str], axes: Mapping[str, float]) -> Input:
    return (tuple(buttons), dict(axes)) if axes else _buttons(tuple(buttons))


@lru_cache(maxsize=1024)
def _buttons(buttons: tuple[str, ...]) -> Input:
    """Return one shared object per combination (never change it): logs have thousands of entries but few buttons."""
    return buttons, {}
