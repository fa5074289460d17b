"""Input between ticks: latest wins, presses are never lost, movement adds up, lock-step acts get one chunk each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadActionError, TooManyPendingError
from server.sessions.input_buffer import InputBuffer
from server.wire.protocol import MAX_MOVEMENT, Act

NAMES = ("up", "down", "fire")


def input_buffer(*, exclusive: bool = False, max_pending: int = 8) -> InputBuffer:
    return InputBuffer(NAMES, {"dx": (-10.0, 10.0)}, exclusive, max_pending)


def put(buffer: InputBuffer, *holds: tuple[str, ...], first_seq: int = 0, lockstep: bool = False) -> None:
    for seq, held in enumerate(holds, start=first_seq):
        buffer.put(Act(seq=seq, buttons=held), 0.0, lockstep=lockstep)


holds = st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple)


def test_before_the_first_act_nothing_is_pressed() -> None:
    sample = input_buffer().sample()
    assert (sample.buttons, sample.stamp, sample.acts) == ((), None, ())


def test_a_key_pressed_and_released_between_two_ticks_is_applied_for_one_chunk() -> None:
    buffer = input_buffer()
    put(buffer, ("up",), ())
    assert [buffer.sample().buttons, buffer.sample().buttons] == [("up",), ()]


def test_with_exclusive_buttons_taps_are_applied_one_after_another() -> None:
    buffer = input_buffer(exclusive=True)
    put(buffer, ("up",), (), ("down",), ())
    samples = [buffer.sample() for _ in range(3)]
    assert [sample.buttons for sample in samples] == [("up",), ("down",), ()]
    assert [sample.stamp.seq for sample in samples if sample.stamp] == [0, 3, 3]


@given(st.lists(st.lists(holds, max_size=4), max_size=6), st.booleans())
def test_every_press_is_applied_and_held_buttons_stay_held(ticks: list[list[tuple[str, ...]]], exclusive: bool) -> None:
    buffer = input_buffer(exclusive=exclusive)
    seq, before = 0, frozenset[str]()
    pressed: set[str] = set()
    applied: set[str] = set()
    for acts in ticks:
        put(buffer, *acts, first_seq=seq)
        seq += len(acts)
        for held in acts:
            pressed |= set(held) - before
            before = frozenset(held)
        applied |= set(buffer.sample().buttons)
    for _ in NAMES:
        applied |= set(last := buffer.sample().buttons)
    assert applied == pressed
    last = buffer.sample().buttons
    assert set(last) <= before
    assert len(last) == (min(1, len(before)) if exclusive else len(before))


def test_movement_adds_up_and_is_clipped_to_the_axis() -> None:
    buffer = input_buffer()
    for seq, dx in enumerate([3.0, 4.5, -1.0]):
        buffer.put(Act(seq=seq, axes={"dx": dx}), 0.0, lockstep=False)
    assert buffer.sample().axes == {"dx": 6.5}
    assert buffer.sample().axes == {}
    buffer.put(Act(seq=9, axes={"dx": 99.0}), 0.0, lockstep=False)
    assert buffer.sample().axes == {"dx": 10.0}


def test_in_lockstep_every_act_gets_its_own_chunk() -> None:
    buffer = input_buffer()
    put(buffer, ("up",), (), ("up", "fire"), lockstep=True)
    samples = [buffer.sample() for _ in range(3)]
    assert [sample.buttons for sample in samples] == [("up",), (), ("up", "fire")]
    assert [sample.acts for sample in samples] == [(0,), (1,), (2,)]


def test_leaving_lockstep_merges_the_waiting_acts_into_one_input() -> None:
    buffer = input_buffer()
    put(buffer, ("up",), (), ("fire",), lockstep=True)
    buffer.flatten()
    sample = buffer.sample()
    assert set(sample.buttons) == {"up", "fire"}
    assert sample.acts == (0, 1, 2)
    assert buffer.num_pending == 0


def test_acts_beyond_the_limit_are_refused_in_lockstep() -> None:
    buffer = input_buffer(max_pending=2)
    put(buffer, (), (), lockstep=True)
    with pytest.raises(TooManyPendingError):
        put(buffer, (), first_seq=2, lockstep=True)
    assert buffer.num_pending == 2


def test_in_real_time_any_number_of_acts_is_accepted() -> None:
    buffer = input_buffer(max_pending=2)
    put(buffer, *[("up",), ()] * 500)
    sample = buffer.sample()
    assert sample.buttons == ("up",)
    assert len(sample.acts) == 2


@pytest.mark.parametrize(
    "act", [Act(seq=5, buttons=("jump",)), Act(seq=5, axes={"dy": 1.0}), Act(seq=4), Act(seq=3)], ids=str
)
def test_a_bad_act_is_refused_and_changes_nothing(act: Act) -> None:
    buffer = input_buffer()
    buffer.put(Act(seq=4, buttons=("up",)), 0.0, lockstep=False)
    with pytest.raises(BadActionError):
        buffer.put(act, 0.0, lockstep=False)
    sample = buffer.sample()
    assert sample.buttons == ("up",)
    assert sample.acts == (4,)


def test_movement_that_adds_up_without_end_stays_a_number() -> None:
    buffer = InputBuffer((), {"x": (-1.0, 1.0)}, exclusive=False, max_pending=4)
    for seq in range(100):
        buffer.put(Act(seq=seq, axes={"x": MAX_MOVEMENT}), 0.0, lockstep=False)
    buffer.put(Act(seq=100, axes={"x": -MAX_MOVEMENT}), 0.0, lockstep=False)
    assert buffer.sample().axes == {"x": 0.0}
