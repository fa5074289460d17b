"""A session without I/O: pacing, pausing, flow control, starts and the replies owed to the client."""

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
NO_STATE = cast("RolloutState", None)  # a session only passes the state on


def new_session(
    pacing: str = "realtime", *, receipts: bool = False, started: bool = True, timeline_frames: int = 600
) -> Session:
    session = Session(
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
    session.life.admit(0)
    session.request_start(StartRequest(), 0.0)
    if started:
        begin_run(session, 0.0)
        session.receive(Ack(frame=0), 0.0)
    return session


def begin_run(session: Session, now: float) -> tuple[RunRequest, ChunkTicket, list[ServerMessage]]:
    """Begin a run and fill the slot at once."""
    begun = session.begin_run(now)
    session.life.filled()
    return begun


def begin_fork(session: Session, now: float) -> tuple[ForkRequest, list[ServerMessage]]:
    """Begin a fork and copy the slot at once."""
    begun = session.begin_fork(now)
    if not begun[1]:
        session.life.copied()
    return begun


def ready(session: Session, now: float) -> bool:
    return session.view().runnable_at <= now


def receipts(messages: list[ServerMessage]) -> list[tuple[str, int, str, int | None]]:
    return [(m.about, m.seq, m.status, m.frame) for m in messages if isinstance(m, Receipt)]


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


def _with_chunks(num: int, timeline_frames: int = 600) -> Session:
    session = new_session(timeline_frames=timeline_frames)
    for number in range(num):
        session.receive(Act(seq=number, buttons=("up",) if number % 2 else ()), 0.0)
        session.receive(Ack(frame=99), 0.0)
        session.begin_chunk(float(number))
    return session


def test_a_rewind_begins_a_run_at_that_frame_and_cuts_the_log() -> None:
    session = _with_chunks(3)
    assert session.receive(Rewind(run_frame=4, seq=9), 10.0) == []
    assert not ready(session, 1e9), "nothing is generated that would be discarded"
    assert session.start_at() <= 10.0
    _, still, replies = begin_run(session, 10.0)
    assert (still.run, still.run_frame, still.generated) == (1, 4, False)
    assert receipts(replies) == [("control", 9, "applied", 7)]
    assert session.begin_chunk(11.0)[0].run_frame == 5
    log = session.run.logged(1)
    assert sum(entry.num_chunks for entry in log.inputs) == 3


@pytest.mark.parametrize("run_frame", [3, 8, 2])
def test_a_rewind_or_fork_to_an_unreachable_frame_is_refused(run_frame: int) -> None:
    session = _with_chunks(3, timeline_frames=2)
    for message in (Rewind(run_frame=run_frame), Fork(run_frame=run_frame)):
        with pytest.raises(
            UnknownFrameError, match=f"frame {run_frame}: this run can go back to 4 to 6, in steps of 2"
        ):
            session.receive(message, 0.0)
    assert session.start_at() > 9.0
    assert session.fork_at() == NEVER


def test_a_branch_has_the_log_of_its_run() -> None:
    session = _with_chunks(3)
    session.receive(Fork(run_frame=4, seq=3), 0.0)
    assert session.fork_at() == 0.5, "as long after the start as a second start would be"
    assert begin_fork(session, 2.0) == (ForkRequest(4, 3), [])
    assert session.fork_at() == NEVER
    session.receive(Fork(), 2.1)
    assert session.fork_at() == 2.5
    branch = session.run.branch(NO_STATE, 4)
    other = new_session(started=False)
    other.request_start(BranchRequest(branch=branch), 0.0)
    _, still, _ = begin_run(other, 0.0)
    assert (still.run, still.run_frame) == (0, 4)
    log = other.run.logged(None)
    assert (log.start_index, log.seed, [entry.num_chunks for entry in log.inputs]) == (0, 0, [1, 1])
    with pytest.raises(UnknownFrameError, match="back to 4 to 4"):
        other.receive(Rewind(run_frame=2), 0.0)


def test_a_fork_comes_before_a_later_rewind() -> None:
    session = _with_chunks(3)
    session.receive(Fork(run_frame=6, seq=3), 0.0)
    session.receive(Rewind(run_frame=2), 0.0)
    assert (session.start_at(), session.fork_at()) == (NEVER, 0.5)
    begin_fork(session, 10.0)
    assert session.start_at() == 10.5


def test_a_fork_without_a_frame_means_the_newest_frame_at_its_request() -> None:
    session = _with_chunks(3)
    session.receive(Fork(seq=3), 0.0)
    session.receive(Ack(frame=99), 0.0)
    session.begin_chunk(5.0)
    assert begin_fork(session, 10.0)[0].run_frame == 6


def test_a_fork_of_a_frame_that_is_no_longer_kept_is_refused() -> None:
    session = _with_chunks(3, timeline_frames=2)
    session.receive(Fork(run_frame=4, seq=3), 0.0)
    for number in range(SLACK_CHUNKS + 1):
        session.receive(Ack(frame=9999), 0.0)
        session.begin_chunk(10.0 + number)
    (refusal,) = begin_fork(session, 11.0)[1]
    assert isinstance(refusal, Error)
    assert (refusal.code, refusal.seq, refusal.fatal) == ("unknown_frame", 3, False)


def refused(messages: list[ServerMessage] | None) -> list[tuple[str, int | None]]:
    assert messages is not None
    return [(message.code, message.seq) for message in messages if isinstance(message, Error)]


def test_a_rewind_whose_frame_is_no_longer_kept_when_it_could_begin_is_refused_and_the_run_goes_on() -> None:
    session = _with_chunks(3)
    session.request_start(StartRequest(control_seq=8), 1.0)
    session.receive(Rewind(run_frame=4, seq=9), 1.0)
    assert session.refuse_rewind(2.0) is None
    session.run.first_frame = session.run.frame  # it was suspended in the meantime
    assert refused(session.refuse_rewind(2.0)) == [("unknown_frame", 8), ("unknown_frame", 9)]
    assert (session.start_at(), session.run.number) == (NEVER, 0)
    assert session.begin_chunk(3.0)[0].run_frame == 7


def _restarted() -> Session:
    """A session of which only its last saved state is left: its run, at frame 4, is to begin again in an empty slot."""
    before = _with_chunks(2)
    session = new_session(started=False)
    session.restore(before.to_data(), 0.0)
    session.restart(BranchRequest(branch=before.run.branch(NO_STATE, 4)), 4)
    session.life.admit(0)
    return session


def test_a_fork_before_a_restarted_run_begins_is_of_that_run() -> None:
    session = _restarted()
    session.receive(Fork(seq=3), 1.0)
    assert session.start_at() <= 1.0
    _, still, replies = begin_run(session, 1.0)
    assert (still.run, still.run_frame, replies) == (1, 4, [])
    assert begin_fork(session, 2.0) == (ForkRequest(4, 3), [])


@pytest.mark.parametrize("start_first", [True, False])
def test_a_fork_before_a_restarted_run_begins_is_refused_if_a_start_takes_its_place(*, start_first: bool) -> None:
    session = _restarted()
    if not start_first:
        session.receive(Fork(seq=3), 1.0)
    session.request_start(StartRequest(control_seq=5), 1.0)
    if start_first:
        session.receive(Fork(seq=3), 1.0)
    _, still, replies = begin_run(session, 1.0)
    assert (still.run, still.run_frame) == (1, 0)
    assert refused(replies) == [("unknown_frame", 3)]
    assert session.fork_at() == NEVER


def test_a_rewind_cannot_replace_the_start_of_a_restarted_run() -> None:
    session = _restarted()
    with pytest.raises(UnknownFrameError, match="once the resumed run has shown its picture"):
        session.receive(Rewind(run_frame=4, seq=3), 1.0)
    request, still, replies = begin_run(session, 1.0)
    assert isinstance(request, BranchRequest)
    assert (still.run_frame, replies) == (4, [])
    session.receive(Rewind(run_frame=4, seq=4), 1.0)


def test_a_fork_of_a_frame_that_the_run_has_not_reached_is_refused() -> None:
    session = _with_chunks(3)
    session.receive(Fork(run_frame=6, seq=3), 0.0)
    session.run.frame = 4  # as if another run had taken its place
    assert refused(begin_fork(session, 10.0)[1]) == [("unknown_frame", 3)]


def test_a_session_that_is_being_copied_generates_nothing() -> None:
    session = _with_chunks(1)
    session.life.begin_copy()
    assert not ready(session, 1e9)


def test_pending_forks_are_limited() -> None:
    session = _with_chunks(1)
    for _ in range(4):
        session.receive(Fork(), 0.0)
    with pytest.raises(TooManyPendingError, match="4 forks"):
        session.receive(Fork(), 0.0)


def test_a_log_of_a_run_from_a_picture_names_no_start() -> None:
    session = new_session()
    session.request_start(StartRequest(pictures=np.zeros((1, 8, 8, 3), dtype=np.uint8), seed=5), 1.0)
    begin_run(session, 1.0)
    log = session.run.logged(2)
    assert (log.seq, log.start_index, log.seed, log.inputs) == (2, None, 5, ())
