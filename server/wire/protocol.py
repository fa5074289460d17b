"""The wire protocol: every message between client and server, and its encoding.

Owns the message types, their limits and the MessagePack encoding. Knows no sockets, sessions or worlds. The file is
long on purpose: it is the single source of the wire, from which the schema, the clients' types and the tests of the
document are generated, and each message is easiest to read beside the others.

One message is one binary WebSocket message: a MessagePack map whose `type` names a model below (for a `control` the
`command` does). `python -m server.wire.protocol` prints the JSON schema from which client types are generated;
`docs/protocol.md` explains it in prose. Increase `PROTOCOL_VERSION` when an existing client would misread a message or
be refused; a new optional field, or a new server message that clients may ignore, does not need that.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgpack
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from server.errors import BadMessageError, ErrorCode, ServerError

PROTOCOL_VERSION = 1

_M = TypeVar("_M")

MAX_BUTTONS = 64
MAX_AXES = 256
MAX_ENCODINGS = 8
MAX_NAME_CHARS = 128
MAX_TICKET_CHARS = 1024
MAX_SEQ = 2**53 - 1

MAX_MOVEMENT = 1e9
MAX_TIME_MS = 1e18


def _whole(value: Any) -> Any:
    """Turn a float without a fraction into the integer that it is: many languages have one type for both."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole: TypeAlias = Annotated[int, BeforeValidator(_whole)]
Name: TypeAlias = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
Seq: TypeAlias = Annotated[Whole, Field(ge=0, le=MAX_SEQ)]
Index: TypeAlias = Annotated[Whole, Field(ge=0, le=MAX_SEQ)]
Movement: TypeAlias = Annotated[float, Field(ge=-MAX_MOVEMENT, le=MAX_MOVEMENT)]
TimeMs: TypeAlias = Annotated[float, Field(ge=-MAX_TIME_MS, le=MAX_TIME_MS)]
Speed: TypeAlias = Annotated[float, Field(ge=0.05, le=16.0)]
Pacing: TypeAlias = Literal["realtime", "lockstep"]
Encoding: TypeAlias = Literal["jpeg", "png"]


class _Received(BaseModel):
    """Base of the messages a client sends: types are strict, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class _Sent(BaseModel):
    """Base of the messages a server sends: clients ignore fields they do not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


# client → server


class StartFrom(_Received):
    """Where a session starts: at most one of these four, by default the world's first start.

    `index`: one of the world's starts. `image`: a PNG, JPEG, WebP or GIF; an animated one is a clip that the world
    continues, a still one is repeated to fill the context. `branch`: the ticket of a `forked` message. `state`: the
    `file` of a `saved` message. `seed` fixes the noise of everything generated from there; a branch and a state bring
    their own, so that with the same input they generate the same frames as the session they came from.
    """

    index: Index | None = None
    image: bytes | None = None
    state: bytes | None = None
    branch: Annotated[str, Field(max_length=MAX_TICKET_CHARS)] | None = None
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = None


class Resume(_Received):
    """Which earlier session to resume. `ticket`: its `resume_ticket`. `last_frame`: the newest frame that arrived, or
    None if none of its frames is on the screen any more."""

    ticket: Annotated[str, Field(max_length=MAX_TICKET_CHARS)]
    last_frame: Index | None = None


class Hello(_Received):
    """The first message, sent once. `encodings`: in order of preference. `receipts`: whether to send receipts for each
    `act`. `token`: for servers that require one. With `resume`, the session keeps its own pacing, start and receipts.
    """

    type: Literal["hello"] = "hello"
    version: Whole
    world: Name
    encodings: Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=MAX_ENCODINGS)] = ("jpeg",)
    pacing: Pacing = "realtime"
    start: StartFrom = StartFrom()
    receipts: bool = False
    token: Annotated[str, Field(max_length=MAX_TICKET_CHARS)] | None = None
    resume: Resume | None = None


class Act(_Received):
    """The player's input from now on. `buttons`: names of all buttons held (the latest act wins, but a button in any
    act is applied for at least one chunk). `axes`: movement since the last act, which adds up until it is applied.
    `seq` increases with every act. `t_client`: any clock of the client, in milliseconds; frames echo it.
    """

    type: Literal["act"] = "act"
    seq: Seq
    buttons: Annotated[tuple[Name, ...], Field(strict=False, max_length=MAX_BUTTONS)] = ()
    axes: Annotated[dict[Name, Movement], Field(max_length=MAX_AXES)] = {}
    t_client: TimeMs | None = None


class Ack(_Received):
    """Frames up to index `frame` have been presented, or dropped by the client; this frees flow-control credit."""

    type: Literal["ack"] = "ack"
    frame: Index


class _Control(_Received):
    """A control with a `seq` is answered by a `receipt` once applied, or by an `error` with that `seq`."""

    type: Literal["control"] = "control"
    seq: Seq | None = None


class Pause(_Control):
    """Stop generating. Frames that are already generated may still arrive."""

    command: Literal["pause"] = "pause"


class Play(_Control):
    """Continue after a pause."""

    command: Literal["play"] = "play"


class Step(_Control):
    """Pause, then generate `num_chunks` chunks with the newest action."""

    command: Literal["step"] = "step"
    num_chunks: Annotated[Whole, Field(ge=1, le=64)] = 1


class Start(_Control):
    """Begin a new run in the same session, from any `StartFrom`."""

    command: Literal["start"] = "start"
    start: StartFrom = StartFrom()


class SetPacing(_Control):
    """Switch between real time (the world's own rate) and lock-step (one chunk per act, no frame dropped)."""

    command: Literal["pacing"] = "pacing"
    pacing: Pacing


class SetSpeed(_Control):
    """Real-time pacing at `speed` times the world's own rate, or as fast as acks allow if `speed` is None."""

    command: Literal["speed"] = "speed"
    speed: Speed | None


class Rewind(_Control):
    """Return to frame `run_frame` of the run (the last of a chunk, at most `limits.timeline_frames` ago). A new run
    continues from there; its first picture is that frame."""

    command: Literal["rewind"] = "rewind"
    run_frame: Index


class Fork(_Control):
    """Branch the session at frame `run_frame` of the run, by default the newest; answered by `forked`."""

    command: Literal["fork"] = "fork"
    run_frame: Index | None = None


class Save(_Control):
    """Request the session as a file, at frame `run_frame` of the run, by default the newest; answered by `saved`."""

    command: Literal["save"] = "save"
    run_frame: Index | None = None


class GetLog(_Control):
    """Request the input of every chunk of this run; answered by `action_log`."""

    command: Literal["log"] = "log"


class Bye(_Received):
    """The client is leaving; the server frees its slot and closes with 1000. `keep`: whether the session can still be
    resumed with its ticket, as after a lost connection."""

    type: Literal["bye"] = "bye"
    keep: bool = False


# server → client


class ButtonInfo(_Sent):
    """A button: the `name` for acts, a `label` for people, and `keys` as DOM `KeyboardEvent.code` values."""

    name: str
    label: str
    keys: Annotated[tuple[str, ...], Field(strict=False)]


class AxisInfo(_Sent):
    """An axis: the `name` for acts, a `label` for people, its range per chunk, and its `source`, such as "mouse_x"."""

    name: str
    label: str
    low: float
    high: float
    source: str


class Usual(_Sent):
    """The usual values of one statistic of the world's pictures: the mean over stretches of two seconds, and their
    standard deviation."""

    mean: float
    deviation: float


class WorldInfo(_Sent):
    """A served world, as a client needs to know it; also an item of `GET /v1/worlds`.

    `statistics`: of the world's real pictures, in grey levels (0 to 255): `brightness` (mean), `contrast` (standard
    deviation), `sharpness` (mean difference of neighbouring pixels), `motion` (mean difference of successive
    pictures); empty if unknown. `pixelated`: the pictures consist of blocks; enlarge them with hard edges.
    `timeline_frames`: how many frames back sessions of this world can go.
    """

    name: str
    title: str
    description: str
    fps: float
    height: int
    width: int
    buttons: Annotated[tuple[ButtonInfo, ...], Field(strict=False)]
    axes: Annotated[tuple[AxisInfo, ...], Field(strict=False)]
    exclusive_buttons: bool
    chunk_frames: int
    starts: Annotated[tuple[str, ...], Field(strict=False)]
    data_license: str
    statistics: dict[str, Usual] = {}
    pixelated: bool = False
    timeline_frames: int = 0


class Limits(_Sent):
    """What the server accepts from this session. `timeline_frames`: how many frames back `rewind` and `fork` reach.
    `session_bytes`: how much of the server's memory the session's past may take, which decides that.
    """

    max_unacked_chunks: int
    max_pending_acts: int
    max_message_bytes: int
    max_image_bytes: int
    timeline_frames: int = 0
    session_bytes: int = 0


class Welcome(_Sent):
    """The answer to `hello` once the session has a slot. `resume_ticket` is None if the server does not offer resuming.

    `generation`: how often the session has been resumed. `last_seq`, of a resumed session: the newest act that arrived
    (-1 for none); later ones were lost.
    """

    type: Literal["welcome"] = "welcome"
    version: int
    session: str
    resume_ticket: str | None
    world: WorldInfo
    encoding: Encoding
    pacing: Pacing
    limits: Limits
    generation: int = 0
    last_seq: int | None = None


class Timings(_Sent):
    """How long each stage of a frame took, in milliseconds, from the arrival of its action to the send queue.

    `queue_ms`: from the arrival of the newest applied act until it was sampled. `step_ms`: the batched rollout step.
    `decode_ms`: latents to pixels. `encode_ms`: pixels to payload. `batch_size`: how many sessions shared the step.
    """

    queue_ms: float
    step_ms: float
    decode_ms: float
    encode_ms: float
    batch_size: int


class Frame(_Sent):
    """One picture. A chunk of several pixel frames arrives as several of these with the same `chunk`.

    `index` and `chunk` count pixel frames and chunks over the whole session; a gap in `index` means that the server
    dropped frames in favour of newer ones. `run` counts starts and rewinds. `run_frame` counts within a run, whose
    first picture has the `kind` "start" and the number 0 (the last frame of the context), or the number of the frame
    that was rewound to or branched from. `applied_seq`: the newest act whose input is in this chunk (None before the
    first). `t_client_echo`: that act's `t_client`. `end_of_chunk`: whether this is the chunk's last picture.
    """

    type: Literal["frame"] = "frame"
    index: int
    chunk: int
    run: int
    run_frame: int
    kind: Literal["start", "generated"]
    end_of_chunk: bool
    encoding: Encoding
    payload: bytes
    applied_seq: int | None
    t_client_echo: float | None
    timings: Timings


class Receipt(_Sent):
    """The act or control `seq` was `received`, or `applied` from `frame` on.

    `about`: which of the two number series `seq` belongs to. For an applied act, `frame` is the index of the first
    pixel frame generated with it. A control is applied when it takes effect; `frame` is then the next frame's index.
    """

    type: Literal["receipt"] = "receipt"
    about: Literal["act", "control"]
    seq: int
    status: Literal["received", "applied"]
    frame: int | None


class Forked(_Sent):
    """A branch is ready: start from its `ticket` (`StartFrom.branch`), as often as you like within `expires_s` seconds.
    It begins with the picture of frame `run_frame` of the run. `seq`: of the `fork`."""

    type: Literal["forked"] = "forked"
    seq: int | None
    ticket: str
    run_frame: int
    expires_s: float


class Saved(_Sent):
    """The session as a `file` to start from (`StartFrom.state`), here or on another server of the same world, at any
    time. It begins with the picture of frame `run_frame` of the run. `seq`: of the `save`."""

    type: Literal["saved"] = "saved"
    seq: int | None
    run_frame: int
    file: bytes


class LoggedInput(_Sent):
    """The same input for `num_chunks` chunks. `buttons`: those that were down. `axes`: the movement in each chunk."""

    num_chunks: int
    buttons: Annotated[tuple[str, ...], Field(strict=False)]
    axes: dict[str, float]


class ActionLog(_Sent):
    """The input of the run from its beginning. Started at `start_index` with `seed` and sent act by act in lock-step,
    it generates the same frames again. `start_index` is None if the run began with a picture, which the client has.
    `complete` is false if the run was too long to keep; `inputs` then holds only its beginning. `seq`: of the `log`.
    """

    type: Literal["action_log"] = "action_log"
    seq: int | None
    start_index: int | None
    seed: int
    inputs: Annotated[tuple[LoggedInput, ...], Field(strict=False)]
    complete: bool


class Queued(_Sent):
    """No slot is free: `position` 1 is next. `eta_s`: the estimated wait in seconds, None if unknown."""

    type: Literal["queued"] = "queued"
    position: int
    eta_s: float | None


class GoAway(_Sent):
    """The server will close this connection in `time_left_s` seconds."""

    type: Literal["go_away"] = "go_away"
    time_left_s: float
    reason: str


class Error(_Sent):
    """The server refused something. `fatal`: the connection closes next. `about` and `seq`: which act or control it
    refused."""

    type: Literal["error"] = "error"
    code: Annotated[ErrorCode, Field(strict=False)]
    message: str
    fatal: bool
    about: Literal["act", "control"] | None = None
    seq: int | None = None


Control: TypeAlias = Pause | Play | Step | Start | SetPacing | SetSpeed | Rewind | Fork | Save | GetLog
ClientMessage: TypeAlias = Hello | Act | Ack | Control | Bye
ServerMessage: TypeAlias = Welcome | Frame | Receipt | Forked | Saved | ActionLog | Queued | GoAway | Error

_AnyControl: TypeAlias = Annotated[Control, Field(discriminator="command")]
_CLIENT: TypeAdapter[ClientMessage] = TypeAdapter(
    Annotated[Hello | Act | Ack | _AnyControl | Bye, Field(discriminator="type")]
)
_SERVER: TypeAdapter[ServerMessage] = TypeAdapter(Annotated[ServerMessage, Field(discriminator="type")])


def error_reply(error: ServerError, about: Literal["act", "control"], seq: int | None) -> Error:
    """Return the message that refuses an act or control and leaves the session running."""
    return Error(code=error.code, message=str(error), fatal=False, about=about, seq=seq)


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Encode a message as the bytes of one binary WebSocket message."""
    packed = msgpack.packb(message.model_dump())
    assert isinstance(packed, bytes)
    return packed


def decode_client(data: bytes) -> ClientMessage:
    """Decode a client's message. Raises `BadMessageError`, which names the wrong field."""
    return _validate(_CLIENT, data)


def decode_server(data: bytes) -> ServerMessage:
    """Decode a server's message. Raises `BadMessageError`, which names the wrong field."""
    return _validate(_SERVER, data)


def _validate(adapter: TypeAdapter[_M], data: bytes) -> _M:
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as exc:
        raise BadMessageError(
            f"{len(data)} bytes are not one MessagePack value ({type(exc).__name__}); "
            "send each message as one MessagePack map in one binary WebSocket message"
        ) from exc
    try:
        return adapter.validate_python(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "message"
        raise BadMessageError(
            f"{field[:100]}: {first['msg'][:300]} (docs/protocol.md lists every message and field)"
        ) from exc


def message_models() -> dict[str, tuple[type[BaseModel], ...]]:
    """Return all message models, by sender."""
    return {"client": get_args(ClientMessage), "server": get_args(ServerMessage)}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of all messages: models in `$defs`, and each side's names in `client` and `server`."""
    models = message_models()
    _, schema = models_json_schema([(m, "serialization") for side in models.values() for m in side])
    return {
        "version": PROTOCOL_VERSION,
        "client": [m.__name__ for m in models["client"]],
        "server": [m.__name__ for m in models["server"]],
        **schema,
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, sort_keys=True))
