"""A session without I/O: pacing, pausing, credit, starts and what is owed to the client."""

from __future__ import annotations

import numpy as np
import pytest

from server.errors import TooManyPendingError, UnknownStartError, UnsupportedError
from server.protocol import (
    Ack,
    Act,
    Fork,
    Pause,
    Play,
    Receipt,
    Rewind,
    ServerMessage,
    SetPacing,
    SetSpeed,
    Step,
    WorldInfo,
)
from server.scheduler import NEVER
from server.session import Session, StartRequest

WORLD = WorldInfo(
    name="w",
    title="W",
    description="",
    fps=10.0,
    height=8,
    width=8,
    buttons=(),
    axes=(),
    exclusive_buttons=False,
    chunk_frames=2,
    starts=("a", "b"),
    data_license="CC0-1.0",
)


def session(pacing: str = "realtime", *, receipts: bool = False, started: bool = True) -> Session:
    made = Session(
        "k",
        WORLD,
        2,
        encoding="png",
        jpeg_quality=90,
        pacing="lockstep" if pacing == "lockstep" else "realtime",
        receipts=receipts,
        max_unacked=3,
        max_pending_acts=4,
    )
    made.slot = 0
    made.want_start(StartRequest(), 0.0)
    if started:
        made.begin_run(0.0)
        made.receive(Ack(frame=0), 0.0)
    return made


def ready(made: Session, now: float) -> bool:
    return made.view().runnable_at <= now


def receipts(messages: list[ServerMessage]) -> list[tuple[str, int, str, int | None]]:
    return [(m.about, m.seq, m.status, m.frame) for m in messages if isinstance(m, Receipt)]


def test_nothing_is_generated_before_the_start_was_carried_out() -> None:
    made = session(started=False)
    assert not ready(made, 1e9)
    assert made.due_start(0.0) is not None
    made.begin_run(0.0)
    assert made.due_start(0.0) is None
    assert ready(made, 0.0)


def test_in_real_time_a_chunk_lasts_as_long_as_its_frames() -> None:
    made = session()
    made.begin_chunk(100.05)  # on the grid of 0.2 s: due at 100.0, so next at 100.2
    assert not ready(made, 100.19)
    assert ready(made, 100.21)


def test_speed_changes_the_rate_and_none_lifts_it() -> None:
    made = session()
    made.receive(SetSpeed(speed=2.0), 0.0)
    made.begin_chunk(100.0)
    assert (ready(made, 100.09), ready(made, 100.11)) == (False, True)
    made.receive(SetSpeed(speed=None), 100.0)
    made.begin_chunk(100.0)
    assert ready(made, 100.0)


def test_three_unacked_chunks_are_the_most_and_an_ack_frees_all_up_to_it() -> None:
    made = session()
    made.receive(SetSpeed(speed=None), 0.0)
    tickets = [made.begin_chunk(0.0)[0] for _ in range(3)]
    assert not ready(made, 1e9)
    made.receive(Ack(frame=tickets[0].index), 0.0)  # the first of its chunk's two frames: the chunk is still in flight
    assert not ready(made, 1e9)
    made.receive(Ack(frame=tickets[1].index + 1), 0.0)
    assert made.num_unacked == 1
    assert ready(made, 1e9)


def test_an_ack_of_frames_never_made_gives_no_credit_in_advance() -> None:
    made = session()
    made.receive(Ack(frame=2**53 - 1), 0.0)
    made.receive(SetSpeed(speed=None), 0.0)
    for _ in range(3):
        made.begin_chunk(0.0)
    assert not ready(made, 1e9)


def test_frames_are_numbered_over_the_session_and_within_the_run() -> None:
    made = session()
    first, second = made.begin_chunk(0.0)[0], made.begin_chunk(1.0)[0]
    made.want_start(StartRequest(index=1), 1.0)
    made.receive(Ack(frame=99), 0.0)
    still = made.begin_run(2.0)[0]
    third = made.begin_chunk(3.0)[0]
    numbers = [(t.index, t.chunk, t.run, t.run_frame, t.generated) for t in (first, second, still, third)]
    assert numbers == [(1, 1, 0, 1, True), (3, 2, 0, 3, True), (5, 3, 1, 0, False), (6, 4, 1, 1, True)]


def test_lockstep_makes_exactly_one_chunk_per_act() -> None:
    made = session("lockstep")
    assert not ready(made, 1e9)
    made.receive(Act(seq=0), 5.0)
    made.receive(Act(seq=1), 6.0)
    seqs = []
    while ready(made, 1e9):
        ticket = made.begin_chunk(7.0)[0]
        assert ticket.keep
        seqs.append(ticket.sample.acts)
    assert seqs == [(0,), (1,)]


def test_a_pause_holds_until_play_and_steps_run_through_it() -> None:
    made = session()
    made.receive(Pause(), 0.0)
    assert not ready(made, 1e9)
    made.receive(Step(num_chunks=2), 1.0)
    made.begin_chunk(1.0)
    assert ready(made, 1.0)
    made.begin_chunk(1.0)
    assert not ready(made, 1e9)
    made.receive(Play(), 2.0)
    assert ready(made, 2.0)


def test_changing_to_real_time_keeps_what_was_pressed() -> None:
    made = session("lockstep")
    made.receive(Act(seq=0), 0.0)
    made.receive(SetPacing(pacing="realtime"), 0.0)
    assert made.begin_chunk(0.0)[0].sample.acts == (0,)


def test_receipts_say_received_and_then_applied_at_which_frame() -> None:
    made = session(receipts=True)
    assert receipts(made.receive(Act(seq=7), 0.0)) == [("act", 7, "received", None)]
    assert receipts(made.begin_chunk(0.0)[1]) == [("act", 7, "applied", 1)]
    assert receipts(made.begin_chunk(1.0)[1]) == []


def test_controls_with_a_number_get_a_receipt_and_others_none() -> None:
    made = session()
    assert receipts(made.receive(Pause(seq=4), 0.0)) == [("control", 4, "applied", 1)]
    assert made.receive(Play(), 0.0) == []
    made.want_start(StartRequest(control_seq=5), 0.0)
    made.want_start(StartRequest(control_seq=6), 0.0)
    assert receipts(made.begin_run(0.0)[1]) == [("control", 5, "applied", 1), ("control", 6, "applied", 1)]


def test_in_lockstep_a_start_comes_after_the_acts_before_it() -> None:
    made = session("lockstep")
    made.receive(Act(seq=0), 0.0)
    made.want_start(StartRequest(), 0.0)
    made.receive(Act(seq=1), 0.0)
    assert made.due_start(9.0) is None
    assert made.begin_chunk(0.0)[0].sample.acts == (0,)
    assert made.due_start(9.0) is not None
    assert not ready(made, 1e9)
    made.begin_run(0.0)
    assert made.begin_chunk(0.0)[0].sample.acts == (1,)


def test_a_start_waits_for_no_chunk_in_flight_and_makes_them_obsolete() -> None:
    made = session()
    made.receive(SetSpeed(speed=None), 0.0)
    for _ in range(3):
        made.begin_chunk(0.0)
    made.want_start(StartRequest(), 1.0)
    assert made.due_start(1.0) is not None
    assert made.view().runnable_at == NEVER
    made.begin_run(1.0)
    assert made.num_unacked == 1


def test_a_second_start_waits_until_the_picture_of_the_first_was_acknowledged() -> None:
    made = session()
    made.want_start(StartRequest(), 1.0)
    still = made.begin_run(1.0)[0]
    made.want_start(StartRequest(), 2.0)
    assert made.start_at() == NEVER
    made.receive(Ack(frame=still.index - 1), 2.0)
    assert made.due_start(9.0) is None
    made.receive(Ack(frame=still.index), 2.0)
    assert made.due_start(2.0) is not None


def test_one_sessions_starts_keep_half_a_second_between_them() -> None:
    made = session()
    made.want_start(StartRequest(), 10.0)
    made.receive(Ack(frame=made.begin_run(10.0)[0].index), 10.0)
    made.want_start(StartRequest(), 10.1)
    assert (made.start_at(), made.due_start(10.4)) == (10.5, None)
    assert made.due_start(10.5) is not None


def test_starts_that_wait_are_bounded_and_none_is_forgotten() -> None:
    made = session()
    for seq in range(4):
        made.want_start(StartRequest(control_seq=seq), 0.0)
    with pytest.raises(TooManyPendingError, match="4 starts"):
        made.want_start(StartRequest(control_seq=4), 0.0)
    assert [seq for _, seq, _, _ in receipts(made.begin_run(1.0)[1])] == [0, 1, 2, 3]


def test_an_unknown_start_is_refused_but_a_picture_always_fits() -> None:
    made = session()
    with pytest.raises(UnknownStartError, match="0 to 1"):
        made.want_start(StartRequest(index=2), 0.0)
    made.want_start(StartRequest(picture=np.zeros((8, 8, 3), dtype=np.uint8)), 0.0)


@pytest.mark.parametrize("message", [Rewind(run_frame=0), Fork()])
def test_what_does_not_exist_yet_says_so(message: Rewind | Fork) -> None:
    with pytest.raises(UnsupportedError, match=message.command):
        session().receive(message, 0.0)
