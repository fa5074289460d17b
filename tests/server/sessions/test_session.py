"""A session without I/O: pacing, pausing, flow control, starts and the replies owed to the client."""

from __future__ import annotations

import numpy as np
import pytest

from server.errors import TooManyPendingError, UnknownStartError
from server.sessions.pacing import NEVER
from server.sessions.run import StartRequest
from server.wire.protocol import (
    Ack,
    Act,
    Pause,
    Play,
    SetPacing,
    SetSpeed,
    Step,
)
from tests.server.sessions.driving import begin_run, new_session, ready, receipts


def test_nothing_is_generated_before_the_first_start() -> None:
    session = new_session(started=False)
    assert not ready(session, 1e9)
    assert session.start_at() <= 0.0
    begin_run(session, 0.0)
    assert session.start_at() > 0.0
    assert ready(session, 0.0)


def test_in_real_time_a_chunk_lasts_as_long_as_its_frames() -> None:
    session = new_session()
    session.begin_chunk(100.05)  # on the grid of 0.2 s: due at 100.0, so next at 100.2
    assert not ready(session, 100.19)
    assert ready(session, 100.21)


def test_speed_changes_the_rate_and_none_removes_the_limit() -> None:
    session = new_session()
    session.receive(SetSpeed(speed=2.0), 0.0)
    session.begin_chunk(100.0)
    assert (ready(session, 100.09), ready(session, 100.11)) == (False, True)
    session.receive(SetSpeed(speed=None), 100.0)
    session.begin_chunk(100.0)
    assert ready(session, 100.0)


def test_at_most_three_chunks_are_unacked_and_an_ack_frees_all_up_to_it() -> None:
    session = new_session()
    session.receive(SetSpeed(speed=None), 0.0)
    tickets = [session.begin_chunk(0.0)[0] for _ in range(3)]
    assert not ready(session, 1e9)
    session.receive(Ack(frame=tickets[0].index), 0.0)  # the first of two frames: the chunk is still in flight
    assert not ready(session, 1e9)
    session.receive(Ack(frame=tickets[1].index + 1), 0.0)
    assert session.num_unacked == 1
    assert ready(session, 1e9)


def test_an_ack_of_frames_never_generated_gives_no_credit_in_advance() -> None:
    session = new_session()
    session.receive(Ack(frame=2**53 - 1), 0.0)
    session.receive(SetSpeed(speed=None), 0.0)
    for _ in range(3):
        session.begin_chunk(0.0)
    assert not ready(session, 1e9)


def test_frames_are_numbered_over_the_session_and_within_the_run() -> None:
    session = new_session()
    first, second = session.begin_chunk(0.0)[0], session.begin_chunk(1.0)[0]
    session.request_start(StartRequest(index=1), 1.0)
    session.receive(Ack(frame=99), 0.0)
    still = begin_run(session, 2.0)[1]
    third = session.begin_chunk(3.0)[0]
    numbers = [(t.index, t.chunk, t.run, t.run_frame, t.generated) for t in (first, second, still, third)]
    assert numbers == [(1, 1, 0, 1, True), (3, 2, 0, 3, True), (5, 3, 1, 0, False), (6, 4, 1, 1, True)]


def test_lockstep_generates_exactly_one_chunk_per_act() -> None:
    session = new_session("lockstep")
    assert not ready(session, 1e9)
    session.receive(Act(seq=0), 5.0)
    session.receive(Act(seq=1), 6.0)
    seqs = []
    while ready(session, 1e9):
        ticket = session.begin_chunk(7.0)[0]
        assert ticket.keep
        seqs.append(ticket.sample.acts)
    assert seqs == [(0,), (1,)]


def test_a_pause_lasts_until_play_and_steps_run_during_it() -> None:
    session = new_session()
    session.receive(Pause(), 0.0)
    assert not ready(session, 1e9)
    session.receive(Step(num_chunks=2), 1.0)
    session.begin_chunk(1.0)
    assert ready(session, 1.0)
    session.begin_chunk(1.0)
    assert not ready(session, 1e9)
    session.receive(Play(), 2.0)
    assert ready(session, 2.0)


def test_changing_to_real_time_keeps_what_was_pressed() -> None:
    session = new_session("lockstep")
    session.receive(Act(seq=0), 0.0)
    session.receive(SetPacing(pacing="realtime"), 0.0)
    assert session.begin_chunk(0.0)[0].sample.acts == (0,)


def test_receipts_say_received_and_then_applied_at_a_frame() -> None:
    session = new_session(receipts=True)
    assert receipts(session.receive(Act(seq=7), 0.0)) == [("act", 7, "received", None)]
    assert receipts(session.begin_chunk(0.0)[1]) == [("act", 7, "applied", 1)]
    assert receipts(session.begin_chunk(1.0)[1]) == []


def test_only_controls_with_a_number_get_a_receipt() -> None:
    session = new_session()
    assert receipts(session.receive(Pause(seq=4), 0.0)) == [("control", 4, "applied", 1)]
    assert session.receive(Play(), 0.0) == []
    session.request_start(StartRequest(control_seq=5), 0.0)
    session.request_start(StartRequest(control_seq=6), 0.0)
    assert receipts(begin_run(session, 0.0)[2]) == [("control", 5, "applied", 1), ("control", 6, "applied", 1)]


def test_in_lockstep_a_start_follows_the_acts_sent_before_it() -> None:
    session = new_session("lockstep")
    session.receive(Act(seq=0), 0.0)
    session.request_start(StartRequest(), 0.0)
    session.receive(Act(seq=1), 0.0)
    assert session.start_at() > 9.0
    assert session.begin_chunk(0.0)[0].sample.acts == (0,)
    assert session.start_at() <= 9.0
    assert not ready(session, 1e9)
    begin_run(session, 0.0)
    assert session.begin_chunk(0.0)[0].sample.acts == (1,)


def test_a_start_does_not_wait_for_chunks_in_flight_but_replaces_them() -> None:
    session = new_session()
    session.receive(SetSpeed(speed=None), 0.0)
    for _ in range(3):
        session.begin_chunk(0.0)
    session.request_start(StartRequest(), 1.0)
    assert session.start_at() <= 1.0
    assert session.view().runnable_at == NEVER
    begin_run(session, 1.0)
    assert session.num_unacked == 1


def test_a_second_start_waits_until_the_picture_of_the_first_is_acknowledged() -> None:
    session = new_session()
    session.request_start(StartRequest(), 1.0)
    still = begin_run(session, 1.0)[1]
    session.request_start(StartRequest(), 2.0)
    assert session.start_at() == NEVER
    session.receive(Ack(frame=still.index - 1), 2.0)
    assert session.start_at() > 9.0
    session.receive(Ack(frame=still.index), 2.0)
    assert session.start_at() <= 2.0


def test_starts_of_one_session_are_half_a_second_apart() -> None:
    session = new_session()
    session.request_start(StartRequest(), 10.0)
    session.receive(Ack(frame=begin_run(session, 10.0)[1].index), 10.0)
    session.request_start(StartRequest(), 10.1)
    assert session.start_at() == 10.5


def test_pending_starts_are_limited_and_each_gets_its_receipt() -> None:
    session = new_session()
    for seq in range(4):
        session.request_start(StartRequest(control_seq=seq), 0.0)
    with pytest.raises(TooManyPendingError, match="4 starts"):
        session.request_start(StartRequest(control_seq=4), 0.0)
    assert [seq for _, seq, _, _ in receipts(begin_run(session, 1.0)[2])] == [0, 1, 2, 3]


def test_an_unknown_start_is_refused_but_a_picture_always_fits() -> None:
    session = new_session()
    with pytest.raises(UnknownStartError, match="0 to 1"):
        session.request_start(StartRequest(index=2), 0.0)
    session.request_start(StartRequest(pictures=np.zeros((1, 8, 8, 3), dtype=np.uint8)), 0.0)
