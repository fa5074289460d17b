"""A session without I/O: pacing, pausing, credit, starts and what is owed to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from server.errors import TooManyPendingError, UnknownFrameError, UnknownStartError
from server.sessions.chunk import ChunkTicket
from server.sessions.pacing import NEVER
from server.sessions.run import SLACK_CHUNKS, BranchRequest, ForkRequest, RunRequest, StartRequest
from server.sessions.session import Session
from server.wire.protocol import (
    Ack,
    Act,
    ButtonInfo,
    Error,
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

if TYPE_CHECKING:
    from world import RolloutState

WORLD = WorldInfo(
    name="w",
    title="W",
    description="",
    fps=10.0,
    height=8,
    width=8,
    buttons=(ButtonInfo(name="up", label="Up", keys=()),),
    axes=(),
    exclusive_buttons=False,
    chunk_frames=2,
    starts=("a", "b"),
    data_license="CC0-1.0",
)
NO_STATE = cast("RolloutState", None)  # a session only passes it on


def session(
    pacing: str = "realtime", *, receipts: bool = False, started: bool = True, timeline_frames: int = 600
) -> Session:
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
        timeline_frames=timeline_frames,
    )
    made.life.admit(0)
    made.request_start(StartRequest(), 0.0)
    if started:
        begin_run(made, 0.0)
        made.receive(Ack(frame=0), 0.0)
    return made


def begin_run(made: Session, now: float) -> tuple[RunRequest, ChunkTicket, list[ServerMessage]]:
    """Begin a run and put it into the slot at once."""
    begun = made.begin_run(now)
    made.life.filled()
    return begun


def begin_fork(made: Session, now: float) -> tuple[ForkRequest, list[ServerMessage]]:
    """Begin a fork and make it at once."""
    begun = made.begin_fork(now)
    if not begun[1]:
        made.life.copied()
    return begun


def ready(made: Session, now: float) -> bool:
    return made.view().runnable_at <= now


def receipts(messages: list[ServerMessage]) -> list[tuple[str, int, str, int | None]]:
    return [(m.about, m.seq, m.status, m.frame) for m in messages if isinstance(m, Receipt)]


def test_nothing_is_generated_before_the_start_was_carried_out() -> None:
    made = session(started=False)
    assert not ready(made, 1e9)
    assert made.start_at() <= 0.0
    begin_run(made, 0.0)
    assert made.start_at() > 0.0
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
    made.request_start(StartRequest(index=1), 1.0)
    made.receive(Ack(frame=99), 0.0)
    still = begin_run(made, 2.0)[1]
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
    made.request_start(StartRequest(control_seq=5), 0.0)
    made.request_start(StartRequest(control_seq=6), 0.0)
    assert receipts(begin_run(made, 0.0)[2]) == [("control", 5, "applied", 1), ("control", 6, "applied", 1)]


def test_in_lockstep_a_start_comes_after_the_acts_before_it() -> None:
    made = session("lockstep")
    made.receive(Act(seq=0), 0.0)
    made.request_start(StartRequest(), 0.0)
    made.receive(Act(seq=1), 0.0)
    assert made.start_at() > 9.0
    assert made.begin_chunk(0.0)[0].sample.acts == (0,)
    assert made.start_at() <= 9.0
    assert not ready(made, 1e9)
    begin_run(made, 0.0)
    assert made.begin_chunk(0.0)[0].sample.acts == (1,)


def test_a_start_waits_for_no_chunk_in_flight_and_makes_them_obsolete() -> None:
    made = session()
    made.receive(SetSpeed(speed=None), 0.0)
    for _ in range(3):
        made.begin_chunk(0.0)
    made.request_start(StartRequest(), 1.0)
    assert made.start_at() <= 1.0
    assert made.view().runnable_at == NEVER
    begin_run(made, 1.0)
    assert made.num_unacked == 1


def test_a_second_start_waits_until_the_picture_of_the_first_was_acknowledged() -> None:
    made = session()
    made.request_start(StartRequest(), 1.0)
    still = begin_run(made, 1.0)[1]
    made.request_start(StartRequest(), 2.0)
    assert made.start_at() == NEVER
    made.receive(Ack(frame=still.index - 1), 2.0)
    assert made.start_at() > 9.0
    made.receive(Ack(frame=still.index), 2.0)
    assert made.start_at() <= 2.0


def test_one_sessions_starts_keep_half_a_second_between_them() -> None:
    made = session()
    made.request_start(StartRequest(), 10.0)
    made.receive(Ack(frame=begin_run(made, 10.0)[1].index), 10.0)
    made.request_start(StartRequest(), 10.1)
    assert made.start_at() == 10.5


def test_starts_that_wait_are_bounded_and_none_is_forgotten() -> None:
    made = session()
    for seq in range(4):
        made.request_start(StartRequest(control_seq=seq), 0.0)
    with pytest.raises(TooManyPendingError, match="4 starts"):
        made.request_start(StartRequest(control_seq=4), 0.0)
    assert [seq for _, seq, _, _ in receipts(begin_run(made, 1.0)[2])] == [0, 1, 2, 3]


def test_an_unknown_start_is_refused_but_a_picture_always_fits() -> None:
    made = session()
    with pytest.raises(UnknownStartError, match="0 to 1"):
        made.request_start(StartRequest(index=2), 0.0)
    made.request_start(StartRequest(pictures=np.zeros((1, 8, 8, 3), dtype=np.uint8)), 0.0)


def _with_chunks(num: int, timeline_frames: int = 600) -> Session:
    made = session(timeline_frames=timeline_frames)
    for number in range(num):
        made.receive(Act(seq=number, buttons=("up",) if number % 2 else ()), 0.0)
        made.receive(Ack(frame=99), 0.0)
        made.begin_chunk(float(number))
    return made


def test_a_rewind_begins_a_run_at_that_frame_and_cuts_the_log() -> None:
    made = _with_chunks(3)
    assert made.receive(Rewind(run_frame=4, seq=9), 10.0) == []
    assert not ready(made, 1e9), "nothing is made that would be thrown away"
    assert made.start_at() <= 10.0
    _, still, replies = begin_run(made, 10.0)
    assert (still.run, still.run_frame, still.generated) == (1, 4, False)
    assert receipts(replies) == [("control", 9, "applied", 7)]
    assert made.begin_chunk(11.0)[0].run_frame == 5
    log = made.run.logged(1)
    assert sum(entry.num_chunks for entry in log.inputs) == 3


@pytest.mark.parametrize("run_frame", [3, 8, 2])
def test_a_frame_that_cannot_be_gone_back_to_is_refused(run_frame: int) -> None:
    made = _with_chunks(3, timeline_frames=2)
    for message in (Rewind(run_frame=run_frame), Fork(run_frame=run_frame)):
        with pytest.raises(
            UnknownFrameError, match=f"frame {run_frame}: this run can go back to 4 to 6, in steps of 2"
        ):
            made.receive(message, 0.0)
    assert made.start_at() > 9.0
    assert made.fork_at() == NEVER


def test_a_branch_knows_what_led_to_it() -> None:
    made = _with_chunks(3)
    made.receive(Fork(run_frame=4, seq=3), 0.0)
    assert made.fork_at() == 0.5, "as long after the start as another start"
    assert begin_fork(made, 2.0) == (ForkRequest(4, 3), [])
    assert made.fork_at() == NEVER
    made.receive(Fork(), 2.1)
    assert made.fork_at() == 2.5
    branch = made.run.branch(NO_STATE, 4)
    other = session(started=False)
    other.request_start(BranchRequest(branch=branch), 0.0)
    _, still, _ = begin_run(other, 0.0)
    assert (still.run, still.run_frame) == (0, 4)
    log = other.run.logged(None)
    assert (log.start_index, log.seed, [entry.num_chunks for entry in log.inputs]) == (0, 0, [1, 1])
    with pytest.raises(UnknownFrameError, match="back to 4 to 4"):
        other.receive(Rewind(run_frame=2), 0.0)


def test_a_fork_is_made_before_the_run_is_left_that_it_was_asked_for_in() -> None:
    made = _with_chunks(3)
    made.receive(Fork(run_frame=6, seq=3), 0.0)
    made.receive(Rewind(run_frame=2), 0.0)
    assert (made.start_at(), made.fork_at()) == (NEVER, 0.5)
    begin_fork(made, 10.0)
    assert made.start_at() == 10.5


def test_a_fork_without_a_frame_means_the_newest_when_it_was_asked_for() -> None:
    made = _with_chunks(3)
    made.receive(Fork(seq=3), 0.0)
    made.receive(Ack(frame=99), 0.0)
    made.begin_chunk(5.0)
    assert begin_fork(made, 10.0)[0].run_frame == 6


def test_a_fork_that_the_world_ran_away_from_is_refused() -> None:
    made = _with_chunks(3, timeline_frames=2)
    made.receive(Fork(run_frame=4, seq=3), 0.0)
    for number in range(SLACK_CHUNKS + 1):
        made.receive(Ack(frame=9999), 0.0)
        made.begin_chunk(10.0 + number)
    (refusal,) = begin_fork(made, 11.0)[1]
    assert isinstance(refusal, Error)
    assert (refusal.code, refusal.seq, refusal.fatal) == ("unknown_frame", 3, False)


def test_a_busy_session_makes_nothing() -> None:
    made = _with_chunks(1)
    made.life.begin_copy()
    assert not ready(made, 1e9)


def test_forks_that_wait_are_bounded() -> None:
    made = _with_chunks(1)
    for _ in range(4):
        made.receive(Fork(), 0.0)
    with pytest.raises(TooManyPendingError, match="4 forks"):
        made.receive(Fork(), 0.0)


def test_a_log_of_a_run_from_a_picture_names_no_start() -> None:
    made = session()
    made.request_start(StartRequest(pictures=np.zeros((1, 8, 8, 3), dtype=np.uint8), seed=5), 1.0)
    begin_run(made, 1.0)
    log = made.run.logged(2)
    assert (log.seq, log.start_index, log.seed, log.inputs) == (2, None, 5, ())
