"""Messages as this client sees them: bytes to dataclasses and back. Owns the wire format; knows no sockets.

Fields a newer server adds are ignored, as are messages of a kind this client does not know.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightcone_client.errors import ProtocolError

PROTOCOL_VERSION = 1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Button:
    """A button of the world; `keys` are DOM `KeyboardEvent.code` values."""

    name: str
    label: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of the world: movement per chunk between `low` and `high`."""

    name: str
    label: str
    low: float
    high: float
    source: str


@dataclass(frozen=True, slots=True)
class WorldInfo:
    """What the server says of a world. `chunk_frames`: pictures one step makes. `statistics`: `mean` and `deviation` of
    its real pictures' brightness, contrast, sharpness and motion, where it says so. `pixelated`: they are made of
    blocks, to be enlarged with hard edges."""

    name: str
    title: str
    description: str
    fps: float
    height: int
    width: int
    buttons: tuple[Button, ...]
    axes: tuple[Axis, ...]
    exclusive_buttons: bool
    chunk_frames: int
    starts: tuple[str, ...]
    data_license: str
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    pixelated: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes from a session; `timeline_frames`: how far back it can be rewound."""

    max_unacked_chunks: int
    max_pending_acts: int
    max_message_bytes: int
    max_image_bytes: int
    timeline_frames: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session, as the server opened it. `generation`: how often it has been resumed; `last_seq`: the newest act
    that it had then."""

    version: int
    session: str
    resume_ticket: str | None
    world: WorldInfo
    encoding: str
    pacing: str
    limits: Limits
    generation: int = 0
    last_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a frame's time went on the server, in milliseconds; `batch_size` sessions shared the step."""

    queue_ms: float
    step_ms: float
    decode_ms: float
    encode_ms: float
    batch_size: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture: `payload` in `encoding`. `picture` decodes it to uint8 `h w 3`; docs/protocol.md has the rest."""

    index: int
    chunk: int
    run: int
    run_frame: int
    kind: str
    end_of_chunk: bool
    encoding: str
    payload: bytes
    applied_seq: int | None
    t_client_echo: float | None
    timings: Timings

    @property
    def picture(self) -> NDArray[np.uint8]:
        """uint8 `h w 3`, decoded anew at each access. Raises ProtocolError for a payload that is no picture."""
        try:
            return np.asarray(Image.open(io.BytesIO(self.payload), formats=("JPEG", "PNG")).convert("RGB"))
        except OSError as exc:
            raise ProtocolError(f"frame {self.index}: {len(self.payload)} bytes are no {self.encoding}") from exc


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an act or control."""

    about: str
    seq: int
    status: str
    frame: int | None


@dataclass(frozen=True, slots=True)
class Forked:
    """A branch to start from: `start(branch=ticket)`, here or in another session, within `expires_s`."""

    seq: int | None
    ticket: str
    run_frame: int
    expires_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """A session as a file: `start(state=file)`, here or on another server of the same world, at any time."""

    seq: int | None
    run_frame: int
    file: bytes


@dataclass(frozen=True, slots=True)
class LoggedInput:
    """The same input for `num_chunks` chunks."""

    num_chunks: int
    buttons: tuple[str, ...]
    axes: dict[str, float]


@dataclass(frozen=True, slots=True)
class ActionLog:
    """The input of a run from its beginning; replayed in lock-step from `start_index` with `seed`, it makes the same
    frames. `start_index` is None where the run began with a picture."""

    seq: int | None
    start_index: int | None
    seed: int
    inputs: tuple[LoggedInput, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Queued:
    """The place in the queue, 1 is next; `eta_s` is None where there is nothing to go by."""

    position: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server closes the connection in `time_left_s`."""

    time_left_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An `error` message."""

    code: str
    message: str
    fatal: bool
    seq: int | None
    about: str | None = None


ServerMessage = Welcome | Frame | Receipt | Forked | Saved | ActionLog | Queued | GoAway | Refusal


def pack(kind: str, **values: Any) -> bytes:
    """A client message."""
    packed: bytes = msgpack.packb({"type": kind, **values})
    return packed


def unpack(data: bytes) -> ServerMessage | None:
    """A server message; None for a kind this client does not know. Raises ProtocolError."""
    try:
        message = msgpack.unpackb(data)
        match message["type"]:
            case "welcome":
                limits = _build(Limits, message["limits"])
                return _build(Welcome, {**message, "world": world_info(message["world"]), "limits": limits})
            case "frame":
                return _build(Frame, {**message, "timings": _build(Timings, message["timings"])})
            case "receipt":
                return _build(Receipt, message)
            case "forked":
                return _build(Forked, message)
            case "saved":
                return _build(Saved, message)
            case "action_log":
                inputs = tuple(_build(LoggedInput, {**i, "buttons": tuple(i["buttons"])}) for i in message["inputs"])
                return _build(ActionLog, {**message, "inputs": inputs})
            case "queued":
                return _build(Queued, message)
            case "go_away":
                return _build(GoAway, message)
            case "error":
                return _build(Refusal, message)
            case _:
                return None
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as exc:
        raise ProtocolError(f"{len(data)} bytes from the server are no message of protocol 1: {exc!r}") from exc


def world_info(value: dict[str, Any]) -> WorldInfo:
    """A world as in `welcome` or `GET /v1/worlds`."""
    buttons = tuple(_build(Button, {**b, "keys": tuple(b["keys"])}) for b in value["buttons"])
    axes = tuple(_build(Axis, a) for a in value["axes"])
    return _build(WorldInfo, {**value, "buttons": buttons, "axes": axes, "starts": tuple(value["starts"])})


def _build(kind: type[_T], values: dict[str, Any]) -> _T:
    """The dataclass from the fields it knows. Raises TypeError when one without a default is missing."""
    return kind(**{known.name: values[known.name] for known in fields(kind) if known.name in values})  # type: ignore[arg-type]  # all are dataclasses
