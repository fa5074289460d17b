"""Admission counts with what ticks take now: the machine becomes slower or faster, and sizes nobody plays follow."""

from __future__ import annotations

import pytest

from server.admission.tick_times import FEWEST, RECENT, WINDOW, TickTimes

MEASURED_MS = {1: 10.0, 2: 15.0, 4: 24.0}


def test_without_ticks_sizes_take_what_was_measured() -> None:
    assert TickTimes(MEASURED_MS).now_ms == MEASURED_MS


def test_ticks_count_once_there_are_enough_of_them() -> None:
    times = TickTimes(MEASURED_MS)
    for _ in range(FEWEST - 1):
        times.note(1, 20.0)
    assert times.now_ms == MEASURED_MS
    times.note(1, 20.0)
    assert times.now_ms[1] == 20.0


def test_sizes_that_nobody_plays_are_as_much_slower() -> None:
    times = TickTimes(MEASURED_MS)
    for _ in range(WINDOW):
        times.note(1, 30.0)
    assert times.now_ms == pytest.approx({1: 30.0, 2: 45.0, 4: 72.0})
    for _ in range(WINDOW):
        times.note(2, 15.0)
    assert times.now_ms == pytest.approx({1: 30.0, 2: 15.0, 4: 24.0})


def test_one_slow_tick_changes_nothing() -> None:
    times = TickTimes(MEASURED_MS)
    for _ in range(WINDOW):
        times.note(1, 10.0)
    times.note(1, 900.0)
    assert times.now_ms == MEASURED_MS


def test_a_machine_that_recovers_is_noticed_within_a_window() -> None:
    times = TickTimes(MEASURED_MS)
    for tick_ms in (*[40.0] * WINDOW, *[10.0] * (WINDOW // 2 + 1)):
        times.note(1, tick_ms)
    assert times.now_ms == MEASURED_MS


def test_old_ticks_no_longer_count() -> None:
    times = TickTimes(MEASURED_MS)
    for _ in range(WINDOW):
        times.note(4, 100.0)
    for _ in range(RECENT):
        times.note(1, 10.0)
    assert times.now_ms[4] == 100.0
    times.note(1, 10.0)
    assert times.now_ms[4] == 24.0
    for _ in range(FEWEST):
        times.note(4, 30.0)
    assert times.now_ms[4] == 30.0, "those of long ago are not mixed with new ones"


def test_a_new_measurement_replaces_ticks() -> None:
    times = TickTimes(MEASURED_MS)
    for _ in range(WINDOW):
        times.note(1, 20.0)
    times.measure(1, 6.0)
    assert times.now_ms == {1: 6.0, 2: 15.0, 4: 24.0}


def test_a_size_that_was_not_measured_is_left_out() -> None:
    times = TickTimes(MEASURED_MS)
    for _ in range(WINDOW):
        times.note(3, 1.0)
    assert times.now_ms == MEASURED_MS
