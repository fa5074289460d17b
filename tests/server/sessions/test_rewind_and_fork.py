"""What a session does when it is asked to go back, to branch, or to be saved: order, limits and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from server.errors import TooManyPendingError, UnknownFrameError
from server.sessions.pacing import NEVER
from server.sessions.run import BranchRequest, ForkRequest, StartRequest
from server.sessions.session import Session
from server.wire.protocol import (
    Ack,
    Act,
    Error,
    Fork,
    Rewind,
    ServerMessage,
)
from tests.server.sessions.driving import NO_STATE, begin_fork, begin_run, new_session, ready, receipts


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
    for number in range(session.run.slack_chunks + 1):
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
