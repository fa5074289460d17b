"""What a stored session may contain. Owns the checks that a row passes before anything is made of it: every value has
its type and range, and every name is one of the world's. Knows no tensors; a world checks those (`StateOwner.check`).

The models mirror the `to_data` of a session and its parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.sessions.pacing import MAX_STEPS
from server.wire.protocol import MAX_SEQ, Act, Encoding, Movement, Name, Pacing, Seq, Speed, WorldInfo

Count = Annotated[int, Field(ge=0, le=MAX_SEQ)]
Stamp = Annotated[tuple[Seq, float | None], Field(strict=False)]
Press = Annotated[tuple[Name, Seq, float | None], Field(strict=False)]
LoggedInput = Annotated[tuple[list[Name], dict[Name, Movement]], Field(strict=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class StoredPace(_Part):
    """Of `Pace`."""

    speed: Speed | None
    paused: bool
    num_steps: Annotated[int, Field(ge=0, le=MAX_STEPS)]


class StoredFlowControl(_Part):
    """Of `FlowControl`."""

    next_index: Count
    next_chunk: Count
    in_flight: list[Count]
    unacked_start: Count | None

    @model_validator(mode="after")
    def _are_past(self) -> Self:
        in_flight = [*self.in_flight, *([] if self.unacked_start is None else [self.unacked_start])]
        if self.in_flight != sorted(self.in_flight) or any(index >= self.next_index for index in in_flight):
            raise ValueError(f"frames {in_flight[:8]} are in flight before frame {self.next_index} was made")
        return self


class StoredLog(_Part):
    """Of `ActionLog`."""

    num_chunks: Count
    complete: bool
    counts: list[Annotated[int, Field(ge=1, le=MAX_SEQ)]]
    inputs: list[LoggedInput]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.counts) != len(self.inputs):
            raise ValueError(f"{len(self.counts)} counts do not fit {len(self.inputs)} inputs")
        return self


class StoredRun(_Part):
    """Of `Run`."""

    number: Annotated[int, Field(ge=-1, le=MAX_SEQ)]
    frame: Count
    start_index: Count | None
    seed: int
    log: StoredLog


class StoredInputBuffer(_Part):
    """Of `InputBuffer`."""

    queue: list[Act]
    held: list[Name]
    presses: list[Press]
    moved: dict[Name, Movement]
    newest: Stamp | None
    unapplied: list[Seq]
    last_seq: Annotated[int, Field(ge=-1, le=MAX_SEQ)]


class StoredSessionData(_Part):
    """Of `Session`."""

    generation: Count
    encoding: Encoding
    pacing: Pacing
    receipts: bool
    pace: StoredPace
    flow_control: StoredFlowControl
    run: StoredRun
    input_buffer: StoredInputBuffer


def checked(data: Any, world: WorldInfo) -> StoredSessionData:
    """Check what `Session.to_data` returned once, for a session of `world`. Raise ValueError."""
    session = StoredSessionData.model_validate(data)
    buffer, log = session.input_buffer, session.run.log
    _check_names(
        "button",
        {button.name for button in world.buttons},
        [
            buffer.held,
            (name for name, _, _ in buffer.presses),
            *(act.buttons for act in buffer.queue),
            *(buttons for buttons, _ in log.inputs),
        ],
    )
    axes = [buffer.moved, *(act.axes for act in buffer.queue), *(axes for _, axes in log.inputs)]
    _check_names("axis", {axis.name for axis in world.axes}, axes)
    return session


def _check_names(what: str, known: set[str], used: Iterable[Iterable[str]]) -> None:
    unknown = {name for names in used for name in names} - known
    if unknown:
        raise ValueError(f"{what} {min(unknown)[:40]!r}: the world has {', '.join(sorted(known)) or 'none'}")
