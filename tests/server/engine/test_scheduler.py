"""Which sessions are stepped next."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from server.engine.scheduler import bucket_for, plan
from server.sessions.pacing import NEVER, SchedulerView, grid_point, next_due

times = st.floats(0, 1e6)
periods = st.floats(0.001, 10)
views = st.lists(
    st.builds(
        SchedulerView,
        slot=st.integers(0, 63),
        world=st.sampled_from("ab"),
        ready_at=times | st.just(NEVER) | st.just(-NEVER),
        period_s=periods,
        unacked=st.integers(0, 4),
        max_unacked=st.just(3),
    ),
    max_size=12,
    unique_by=lambda view: view.slot,
)


@given(views, times, st.integers(1, 8))
def test_only_runnable_sessions_of_one_world_are_planned(
    views: list[SchedulerView], now: float, max_batch: int
) -> None:
    chosen = plan(views, now, max_batch)
    by_slot = {view.slot: view for view in views}
    assert len(chosen.slots) <= max_batch
    for slot in chosen.slots:
        assert by_slot[slot].world == chosen.world
        assert by_slot[slot].ready_at <= now
        assert by_slot[slot].unacked < 3


@given(views, times, st.integers(1, 8))
def test_no_runnable_session_waits_while_there_is_room(views: list[SchedulerView], now: float, max_batch: int) -> None:
    chosen = plan(views, now, max_batch)
    runnable = [v for v in views if v.unacked < 3 and v.ready_at <= now]
    assert bool(chosen.slots) == bool(runnable)
    same_world = [v for v in runnable if v.world == chosen.world]
    assert len(chosen.slots) == min(len(same_world), max_batch)


@given(views, times, st.integers(1, 8))
def test_no_skipped_session_is_more_urgent_than_the_first(
    views: list[SchedulerView], now: float, max_batch: int
) -> None:
    chosen = plan(views, now, max_batch)
    if chosen.slots:
        by_slot = {view.slot: view for view in views}
        runnable = [v for v in views if v.unacked < 3 and v.ready_at <= now]
        assert by_slot[chosen.slots[0]].deadline == min(v.deadline for v in runnable)


@given(views, times)
def test_with_nothing_due_it_wakes_when_the_next_session_is(views: list[SchedulerView], now: float) -> None:
    chosen = plan(views, now, 8)
    if not chosen.slots:
        assert chosen.wake_at > now
        if chosen.wake_at < NEVER:
            assert plan(views, chosen.wake_at, 8).slots


@given(times, periods, times)
def test_due_times_never_repeat_or_lag_by_more_than_a_period(due: float, period: float, now: float) -> None:
    due = grid_point(due, period)
    following = next_due(due, period, now)
    assert following > due
    assert following > now - period - 1e-6


@given(st.lists(st.floats(0, 0.9), min_size=5, max_size=50), periods)
def test_lateness_within_a_period_costs_no_frame(lateness: list[float], period: float) -> None:
    due = grid_point(100.0, period)
    first = round(due / period)
    for late in lateness:
        due = next_due(due, period, due + late * period)
    assert round(due / period) == first + len(lateness)


@given(st.lists(times, min_size=2, max_size=8), periods)
def test_sessions_that_joined_at_any_time_share_their_due_times(joined: list[float], period: float) -> None:
    now = max(joined) + 1
    dues = set()
    for joined_at in joined:
        due = grid_point(joined_at, period)
        while due <= now:
            due = next_due(due, period, max(due, now))
        dues.add(due)
    assert len(dues) == 1


@given(st.integers(2, 6), st.integers(1, 3))
def test_with_small_batches_every_session_still_gets_a_turn(num_sessions: int, max_batch: int) -> None:
    state = {
        slot: SchedulerView(slot=slot, world="ab"[slot % 2], ready_at=0, period_s=1, unacked=0, max_unacked=3)
        for slot in range(num_sessions)
    }
    turns = dict.fromkeys(state, 0)
    for now in range(num_sessions * 10):
        for slot in plan(state.values(), now, max_batch).slots:
            turns[slot] += 1
            state[slot] = replace(state[slot], ready_at=now)  # without a pace: ready again at once
    assert min(turns.values()) >= 5


@given(st.integers(1, 20))
def test_a_bucket_holds_its_batch_and_smaller_ones_do_not(num_slots: int) -> None:
    buckets = (1, 2, 4, 8, 32)
    size = bucket_for(num_slots, buckets)
    assert size >= num_slots
    assert all(smaller < num_slots for smaller in buckets if smaller < size)
    assert bucket_for(num_slots, ()) == num_slots
