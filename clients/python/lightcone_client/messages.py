"""The protocol's messages as dataclasses. Owns encoding and decoding; knows no sockets.

Unknown fields and unknown message types, which a newer server may send, are ignored.
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
    """A button of a world; `keys` are DOM `KeyboardEvent.code` values."""

    name: str
    label: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a world: the movement per chunk, between `low` and `high`."""

    name: str
    label: str
    low: float
    high: float
    source: str


@dataclass(frozen=True, slots=True)
class WorldInfo:
    """The server's description of a world.

    `chunk_frames`: pictures per step. `statistics`: `mean` and `deviation` of the brightness, contrast, sharpness and
    motion of its real pictures, if known. `pixelated`: its pictures are pixel art, to be enlarged with hard edges.
    `timeline_frames`: how many frames back its sessions can go.
    """

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
    timeline_frames: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The server's limits for a session; `timeline_frames`: how far back it can be rewound, because its past may take
    `session_bytes` of the server's memory."""

    max_unacked_chunks: int
    max_pending_acts: int
    max_message_bytes: int
    max_image_bytes: int
    timeline_frames: int = 0
    session_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session as the server opened or resumed it. `generation`: how often it has been resumed; `last_seq`: the
    newest act that the server had received by then."""

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
    """How long the server spent on a frame, in milliseconds; `batch_size` sessions shared the step."""

    queue_ms: float
    step_ms: float
    decode_ms: float
    encode_ms: float
    batch_size: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame: a picture encoded as `payload`. docs/protocol.md describes the fields."""

    index: int
    chunk: int
    run: int
    run_frame: int
    kind: str
    end_of_chunk: bool
    encoding: str
    payload: bytes = field(repr=False)
    applied_seq: int | None
    t_client_echo: float | None
    timings: Timings

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The picture, uint8 `h w 3`, decoded on each access. Raises ProtocolError if the payload cannot be decoded."""
        try:
            return np.asarray(Image.open(io.BytesIO(self.payload), formats=("JPEG", "PNG")).convert("RGB"))
        except OSError as exc:
            raise ProtocolError(
                f"frame {self.index}: {len(self.payload)} bytes are not a valid {self.encoding}"
            ) from exc


@dataclass(frozen=True, slots=True)
class Receipt:
    """Whether and where an act or control took effect."""

    about: str
    seq: int
    status: str
    frame: int | None


@dataclass(frozen=True, slots=True)
class Forked:
    """A branch, for `start(branch=ticket)` in this or another session within `expires_s` seconds."""

    seq: int | None
    ticket: str
    run_frame: int
    expires_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """A saved session, for `start(state=file)` on this or another server of the same world; it does not expire."""

    seq: int | None
    run_frame: int
    file: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoggedInput:
    """An input that was held for `num_chunks` chunks."""

    num_chunks: int
    buttons: tuple[str, ...]
    axes: dict[str, float]


@dataclass(frozen=True, slots=True)
class ActionLog:
    """The input of a run from its beginning. Replayed in lock-step from `start_index` with `seed`, it gives the same
    frames. `start_index` is None if the run started from a picture."""

    seq: int | None
    start_index: int | None
    seed: int
    inputs: tuple[LoggedInput, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Queued:
    """The position in the admission queue (1 is next); `eta_s` is None if the wait cannot be estimated."""

    position: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server will close the connection in `time_left_s` seconds."""

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
    """Encode a client message."""
    packed: bytes = msgpack.packb({"type": kind, **values})
    return packed


def unpack(data: bytes) -> ServerMessage | None:
    """Decode a server message; returns None for an unknown type. Raises ProtocolError."""
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
        raise ProtocolError(f"{len(data)} bytes from the server are not a message of protocol 1: {exc!r}") from exc


def world_info(value: dict[str, Any]) -> WorldInfo:
    """Build a WorldInfo from a world in `welcome` or `GET /v1/worlds`."""
    buttons = tuple(_build(Button, {**b, "keys": tuple(b["keys"])}) for b in value["buttons"])
    axes = tuple(_build(Axis, a) for a in value["axes"])
    return _build(WorldInfo, {**value, "buttons": buttons, "axes": axes, "starts": tuple(value["starts"])})


def _build(kind: type[_T], values: dict[str, Any]) -> _T:
    """Build a dataclass from the fields it declares. Raises TypeError if a field without a default is missing."""
    return kind(**{known.name: values[known.name] for known in fields(kind) if known.name in values})  # type: ignore[arg-type]  # all are dataclasses
