"""The wire protocol: every message between a client and a server, and how it becomes bytes.

One long file for a reason: it is the single source of the wire, from which schema, client types and the document's
tests are made, and a message is read beside its neighbours.

Owns: message types, field limits, MessagePack encoding. Does not know: sockets, sessions or worlds.

One message is one binary WebSocket message: a MessagePack map whose `type` names the model below (a `control` is told
apart further by `command`). `python -m server.wire.protocol` prints the JSON schema from which client types are generated;
`docs/protocol.md` explains it in prose. Bump `PROTOCOL_VERSION` when an existing client would misread or be refused;
adding an optional field or a server message that clients may ignore needs no bump.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgpack
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from server.errors import BadMessageError, ErrorCode, ServerError

PROTOCOL_VERSION = 1

_M = TypeVar("_M")

MAX_BUTTONS = 64
MAX_AXES = 16
MAX_ENCODINGS = 8
MAX_NAME_CHARS = 128
MAX_TICKET_CHARS = 1024
MAX_SEQ = 2**53 - 1

Name: TypeAlias = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
Seq: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SEQ)]
Index: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SEQ)]
Pacing: TypeAlias = Literal["realtime", "lockstep"]
Encoding: TypeAlias = Literal["jpeg", "png"]


class _Received(BaseModel):
    """Base of what a client sends: strict types, and a field this version does not have is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class _Sent(BaseModel):
    """Base of what a server sends: clients ignore fields they do not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


# ---- client → server


class StartFrom(_Received):
    """Where a session starts: `index` of one of the world's starts, an `image` (PNG, JPEG, WebP or GIF; one that moves
    is a clip that is gone on from, one that does not is held still), a `branch`: the ticket of a `forked` message,
    which goes on from there, or a `state`: the `file` of a `saved` message.

    At most one of the four; with none, the world's first start. `seed` fixes the noise of everything generated after
    (a branch and a state have their own: with the same input they make the same frames as what they branched from).
    """

    index: Index | None = None
    image: bytes | None = None
    state: bytes | None = None
    branch: Annotated[str, Field(max_length=MAX_TICKET_CHARS)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class Resume(_Received):
    """Go on with an earlier session: `ticket` is its `resume_ticket`, `last_frame` the newest frame that has arrived,
    or None where nothing of it is on the screen any more."""

    ticket: Annotated[str, Field(max_length=MAX_TICKET_CHARS)]
    last_frame: Index | None = None


class Hello(_Received):
    """The first message, once. `encodings` in order of preference; `receipts` asks for a receipt per `act`. With
    `resume`, pacing, start and receipts are those of the session that goes on.
    """

    type: Literal["hello"] = "hello"
    version: int
    world: Name
    encodings: Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=MAX_ENCODINGS)] = ("jpeg",)
    pacing: Pacing = "realtime"
    start: StartFrom = StartFrom()
    receipts: bool = False
    token: Annotated[str, Field(max_length=MAX_TICKET_CHARS)] | None = None
    resume: Resume | None = None


class Act(_Received):
    """The player's input from now on. `buttons`: names of all buttons held (absolute: latest wins, but a button that
    appears in any act is applied for at least one chunk). `axes`: movement since the last act (adds up until applied).
    `seq` rises with every act. `t_client`: any clock of the client in milliseconds; frames echo it.
    """

    type: Literal["act"] = "act"
    seq: Seq
    buttons: Annotated[tuple[Name, ...], Field(strict=False, max_length=MAX_BUTTONS)] = ()
    axes: Annotated[dict[Name, float], Field(max_length=MAX_AXES)] = {}
    t_client: float | None = None


class Ack(_Received):
    """Every frame with index <= `frame` has been presented (or dropped by the client); it frees flow-control credit."""

    type: Literal["ack"] = "ack"
    frame: Index


class _Control(_Received):
    """A control with a `seq` is answered by a `receipt` when it has been applied, or by an `error` with that `seq`."""

    type: Literal["control"] = "control"
    seq: Seq | None = None


class Pause(_Control):
    """Stop generating. Frames already generated may still arrive."""

    command: Literal["pause"] = "pause"


class Play(_Control):
    """Go on generating after a pause."""

    command: Literal["play"] = "play"


class Step(_Control):
    """Pause, then generate `num_chunks` chunks with the newest action."""

    command: Literal["step"] = "step"
    num_chunks: Annotated[int, Field(ge=1, le=64)] = 1


class Start(_Control):
    """Restart in place: a new run from a start of the world or from a picture."""

    command: Literal["start"] = "start"
    start: StartFrom = StartFrom()


class SetPacing(_Control):
    """Change between real time (the world's own rate) and lock-step (one chunk per act, none dropped)."""

    command: Literal["pacing"] = "pacing"
    pacing: Pacing


class SetSpeed(_Control):
    """Real-time pacing at `speed` times the world's own rate; as fast as acks allow when `speed` is None."""

    command: Literal["speed"] = "speed"
    speed: Annotated[float, Field(ge=0.05, le=16.0)] | None


class Rewind(_Control):
    """Go back to the run's frame `run_frame` (a chunk's last, at most `limits.timeline_frames` ago) and go on from
    there: a new run whose first picture is that frame."""

    command: Literal["rewind"] = "rewind"
    run_frame: Index


class Fork(_Control):
    """Branch the session at the run's frame `run_frame`, by default the newest; answered by `forked`."""

    command: Literal["fork"] = "fork"
    run_frame: Index | None = None


class Save(_Control):
    """Ask for the session at the run's frame `run_frame`, by default the newest, as a file; answered by `saved`."""

    command: Literal["save"] = "save"
    run_frame: Index | None = None


class GetLog(_Control):
    """Ask for the input of every chunk of this run; answered by `action_log`."""

    command: Literal["log"] = "log"


class Bye(_Received):
    """The client is leaving; the server frees its slot and closes with 1000."""

    type: Literal["bye"] = "bye"


# ---- server → client


class ButtonInfo(_Sent):
    """A button: the `name` that acts use, a `label` for people, `keys` as DOM `KeyboardEvent.code` values."""

    name: str
    label: str
    keys: Annotated[tuple[str, ...], Field(strict=False)]


class AxisInfo(_Sent):
    """An axis: the `name` that acts use, its range per chunk and its natural `source`, such as "mouse_x"."""

    name: str
    label: str
    low: float
    high: float
    source: str


class Usual(_Sent):
    """What is usual for a figure of the world's pictures: its mean over stretches of two seconds, and how far it
    usually strays from that (standard deviation)."""

    mean: float
    deviation: float


class WorldInfo(_Sent):
    """A served world: what a player must know (also the items of `GET /v1/worlds`).

    `statistics`: of the world's real pictures, in grey levels (0 to 255): `brightness` (mean), `contrast` (standard
    deviation), `sharpness` (mean difference of neighbouring pixels), `motion` (mean difference of successive
    pictures); empty where the world does not say. `pixelated`: they are made of blocks, to be enlarged with hard edges.
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


class Limits(_Sent):
    """What the server will take from this session. `timeline_frames`: how far back `rewind` and `fork` reach."""

    max_unacked_chunks: int
    max_pending_acts: int
    max_message_bytes: int
    max_image_bytes: int
    timeline_frames: int = 0


class Welcome(_Sent):
    """The answer to `hello` once the session has a slot. `resume_ticket` is None where resuming is not offered.

    `generation` counts how often the session has been resumed; then `last_seq` is the newest act that it has (-1 for
    none): later ones were lost on the way.
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
    """Where a frame's time went, in milliseconds: from sampling the action until it reached the socket's queue.

    `queue_ms`: from the arrival of the newest applied act until it was sampled. `step_ms`: the batched rollout step.
    `decode_ms`: codec. `encode_ms`: picture encoding. `batch_size`: sessions that shared the step.
    """

    queue_ms: float
    step_ms: float
    decode_ms: float
    encode_ms: float
    batch_size: int


class Frame(_Sent):
    """One picture. A chunk of several pixel frames is several of these with one `chunk`.

    `index` rises by one per pixel frame over the whole session (a gap means the server dropped frames in favour of
    newer ones); `chunk` counts likewise. `run` counts starts and rewinds; `run_frame` counts on from the picture the
    run begins with, whose `kind` is "start": the last of its context (0), or the frame gone back to or branched from.
    `applied_seq`: the newest act whose input is in this chunk (None before the first); `t_client_echo` is its
    `t_client`. `end_of_chunk`: the chunk's last picture.
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
    """What became of the act or control `seq`: `received`, or `applied` at the frame `frame` (its first pixel frame).

    `about` says which of the two number series `seq` belongs to. A control is "applied" when it has taken effect;
    `frame` is then the index the next generated frame will carry.
    """

    type: Literal["receipt"] = "receipt"
    about: Literal["act", "control"]
    seq: int
    status: Literal["received", "applied"]
    frame: int | None


class Forked(_Sent):
    """A branch is there to start from (`StartFrom.branch`), once or several times within `expires_s` seconds. It begins
    with the picture of the run's frame `run_frame`. `seq`: of the `fork`."""

    type: Literal["forked"] = "forked"
    seq: int | None
    ticket: str
    run_frame: int
    expires_s: float


class Saved(_Sent):
    """The session as a file to start from (`StartFrom.state`), here or on another server of the same world, at any
    time. It begins with the picture of the run's frame `run_frame`. `seq`: of the `save`."""

    type: Literal["saved"] = "saved"
    seq: int | None
    run_frame: int
    file: bytes


class LoggedInput(_Sent):
    """The same input for `num_chunks` chunks: `buttons` that were down, `axes` movement of each chunk."""

    num_chunks: int
    buttons: Annotated[tuple[str, ...], Field(strict=False)]
    axes: dict[str, float]


class ActionLog(_Sent):
    """The input of the run from its beginning: sent act by act in lock-step to a start at `start_index` with `seed`, it
    makes the same frames again. `start_index` is None where the run began with a picture, which the client has. Not
    `complete` where the run was too long to keep; the `inputs` are then its beginning. `seq`: of the `log`.
    """

    type: Literal["action_log"] = "action_log"
    seq: int | None
    start_index: int | None
    seed: int
    inputs: Annotated[tuple[LoggedInput, ...], Field(strict=False)]
    complete: bool


class Queued(_Sent):
    """No slot is free: `position` 1 is next. `eta_s` is an estimate, or None where there is nothing to go by."""

    type: Literal["queued"] = "queued"
    position: int
    eta_s: float | None


class GoAway(_Sent):
    """The server will close this connection in `time_left_s` seconds."""

    type: Literal["go_away"] = "go_away"
    time_left_s: float
    reason: str


class Error(_Sent):
    """Something the client asked for was refused. `fatal`: the connection closes next. `about` and `seq`: which
    act or control it was."""

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


def refusal_of(error: ServerError, about: Literal["act", "control"], seq: int | None) -> Error:
    """The message that says that an act or control was refused; the session goes on."""
    return Error(code=error.code, message=str(error), fatal=False, about=about, seq=seq)


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """The message as the bytes of one binary WebSocket message."""
    packed = msgpack.packb(message.model_dump())
    assert isinstance(packed, bytes)
    return packed


def decode_client(data: bytes) -> ClientMessage:
    """What a client sent. Raises `BadMessageError`, saying which field is wrong, for anything else."""
    return _validate(_CLIENT, data)


def decode_server(data: bytes) -> ServerMessage:
    """What a server sent. Raises `BadMessageError`, saying which field is wrong, for anything else."""
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
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise BadMessageError(
            f"{where[:100]}: {first['msg'][:300]} (docs/protocol.md lists every message and field)"
        ) from exc


def message_models() -> dict[str, tuple[type[BaseModel], ...]]:
    """Every message model, by who sends it."""
    return {"client": get_args(ClientMessage), "server": get_args(ServerMessage)}


def json_schema() -> dict[str, Any]:
    """The JSON schema of all messages: `$defs` by model name, and `client` / `server` naming each side's messages."""
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
