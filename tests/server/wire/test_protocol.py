"""The wire: every message survives encoding and decoding, and everything else is refused."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadMessageError, ErrorCode
from server.wire.protocol import (
    Ack,
    Act,
    Bye,
    Error,
    Fork,
    Frame,
    GetLog,
    Hello,
    Pause,
    Play,
    Rewind,
    Save,
    SetPacing,
    SetSpeed,
    Start,
    StartFrom,
    Step,
    Timings,
    decode_client,
    decode_server,
    encode,
    json_schema,
    message_models,
)

names = st.text(max_size=20)
seqs = st.integers(0, 2**53 - 1)
maybe_seq = st.none() | seqs
floats = st.floats(-1e9, 1e9)
starts = st.builds(
    StartFrom, index=st.none() | seqs, image=st.none() | st.binary(), seed=st.none() | st.integers(0, 2**31 - 1)
)
client_messages = st.one_of(
    st.builds(Hello, version=st.integers(0, 99), world=names, start=starts, receipts=st.booleans(), token=names),
    st.builds(
        Act, seq=seqs, buttons=st.lists(names, max_size=5).map(tuple), axes=st.dictionaries(names, floats, max_size=3)
    ),
    st.builds(Ack, frame=seqs),
    st.builds(Pause, seq=maybe_seq),
    st.builds(Play, seq=maybe_seq),
    st.builds(Step, seq=maybe_seq, num_chunks=st.integers(1, 64)),
    st.builds(Start, seq=maybe_seq, start=starts),
    st.builds(SetPacing, pacing=st.sampled_from(["realtime", "lockstep"])),
    st.builds(SetSpeed, speed=st.none() | st.floats(0.05, 16)),
    st.builds(Rewind, run_frame=seqs),
    st.builds(Fork),
    st.builds(Save, run_frame=maybe_seq),
    st.builds(GetLog, seq=maybe_seq),
    st.builds(Bye),
)
frames = st.builds(
    Frame,
    index=seqs,
    chunk=seqs,
    run=seqs,
    run_frame=seqs,
    kind=st.sampled_from(["start", "generated"]),
    end_of_chunk=st.booleans(),
    encoding=st.sampled_from(["jpeg", "png"]),
    payload=st.binary(),
    applied_seq=maybe_seq,
    t_client_echo=st.none() | floats,
    timings=st.builds(
        Timings, queue_ms=floats, step_ms=floats, decode_ms=floats, encode_ms=floats, batch_size=st.integers(1, 8)
    ),
)


@given(client_messages)
def test_a_client_message_survives_the_wire(message: Act) -> None:
    assert decode_client(encode(message)) == message


@given(frames)
def test_a_frame_survives_the_wire(frame: Frame) -> None:
    assert decode_server(encode(frame)) == frame


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_survives_the_wire(code: ErrorCode) -> None:
    error = Error(code=code, message="m", fatal=False, seq=3)
    assert decode_server(encode(error)) == error


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_bad_message(data: bytes) -> None:
    try:
        decoded = decode_client(data)
    except BadMessageError:
        return
    assert decode_client(encode(decoded)) == decoded


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.sampled_from(["hello", "act", "ack", "control", "bye"]), st.dictionaries(st.text(max_size=8), anything), anything
)
def test_any_map_is_a_message_or_a_bad_message(kind: str, extra: dict[str, object], seq: object) -> None:
    data = msgpack.packb({**extra, "type": kind, "seq": seq})
    try:
        decoded = decode_client(data)
    except BadMessageError:
        return
    assert decode_client(encode(decoded)) == decoded


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"type": "act", "seq": "1"}, "act.seq"),
        ({"type": "act", "seq": True}, "act.seq"),
        ({"type": "act", "seq": -1}, "act.seq"),
        ({"type": "act", "seq": 1.5}, "act.seq"),
        ({"type": "act", "seq": float("inf")}, "act.seq"),
        ({"type": "act", "seq": 1, "axes": {"x": float("nan")}}, "act.axes.x"),
        ({"type": "act", "seq": 1, "axes": {"x": 1e300}}, "act.axes.x"),
        ({"type": "act", "seq": 1, "t_client": float("inf")}, "act.t_client"),
        ({"type": "act", "seq": 1, "t_client": -1e300}, "act.t_client"),
        ({"type": "ack", "frame": 2.0**53}, "ack.frame"),
        ({"type": "control", "command": "speed", "speed": float("nan")}, "control.speed.speed"),
        ({"type": "control", "command": "step", "num_chunks": 0.0}, "control.step.num_chunks"),
        ({"type": "hello", "version": 1, "world": "w", "start": {"seed": -1}}, "hello.start.seed"),
        ({"type": "act", "seq": 1, "buttons": ["up"] * 65}, "act.buttons"),
        ({"type": "act", "seq": 1, "botton": []}, "act.botton"),
        ({"type": "control", "command": "explode"}, "control"),
        ({"type": "shout"}, "shout"),
        ({"seq": 1}, "type"),
        ([1, 2], "message"),
    ],
)
def test_a_bad_field_is_named(value: object, field: str) -> None:
    with pytest.raises(BadMessageError, match=field):
        decode_client(msgpack.packb(value))


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ({"type": "act", "seq": 1.0}, Act(seq=1)),
        ({"type": "act", "seq": 0, "axes": {"x": 2}, "t_client": 3}, Act(seq=0, axes={"x": 2.0}, t_client=3.0)),
        ({"type": "ack", "frame": 7.0}, Ack(frame=7)),
        ({"type": "control", "command": "step", "seq": 1.0, "num_chunks": 2.0}, Step(seq=1, num_chunks=2)),
        (
            {"type": "control", "command": "start", "start": {"index": 1.0, "seed": 3.0}},
            Start(start=StartFrom(index=1, seed=3)),
        ),
    ],
)
def test_a_number_may_be_written_as_integer_or_float(value: object, same: object) -> None:
    """Languages with one type for both write whichever is shorter."""
    assert decode_client(msgpack.packb(value)) == same


@pytest.mark.parametrize("number", [17, 256])
def test_an_act_may_move_many_axes(number: int) -> None:
    act = Act(seq=0, axes={f"axis{i}": 0.5 for i in range(number)})
    assert decode_client(encode(act)) == act


def test_deeply_nested_bytes_are_a_bad_message() -> None:
    with pytest.raises(BadMessageError, match="100000 bytes"):
        decode_client(b"\x91" * 100_000)


def test_a_server_may_add_fields_that_older_clients_ignore() -> None:
    data = msgpack.packb({"type": "queued", "position": 1, "eta_s": None, "colour": "blue"})
    assert decode_server(data).type == "queued"


def test_the_schema_has_every_message() -> None:
    schema = json_schema()
    for side, models in message_models().items():
        assert schema[side] == [model.__name__ for model in models]
        assert set(schema[side]) <= schema["$defs"].keys()
