"""The log of a run: compact, cut by a rewind, and marked incomplete when it grows too long."""

from __future__ import annotations

import itertools
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from server.sessions.action_log import ActionLog
from server.sessions.input_buffer import Sample

INPUTS = st.lists(st.sampled_from([(), ("up",), ("up", "left")]), max_size=40)


def expanded(log: ActionLog) -> list[tuple[str, ...]]:
    return [entry.buttons for entry in log.entries() for _ in range(entry.num_chunks)]


@given(inputs=INPUTS, keep=st.integers(0, 40), after=INPUTS)
def test_a_log_holds_what_was_appended_even_after_a_cut(
    inputs: list[tuple[str, ...]], keep: int, after: list[tuple[str, ...]]
) -> None:
    log = ActionLog()
    for buttons in inputs:
        log.append(Sample(buttons))
    before = log.copy()
    keep = min(keep, len(inputs))
    log.cut(keep)
    for buttons in after:
        log.append(Sample(buttons))
    assert expanded(log) == inputs[:keep] + after
    assert (log.num_chunks, log.complete) == (keep + len(after), True)
    assert expanded(before) == inputs, "a copy does not change with its original"


def test_equal_inputs_share_an_entry_and_axes_are_compared_too() -> None:
    log = ActionLog()
    for value in (0.5, 0.5, 0.25):
        log.append(Sample(("up",), {"look": value}))
    assert [(e.num_chunks, dict(e.axes)) for e in log.entries()] == [(2, {"look": 0.5}), (1, {"look": 0.25})]


def test_a_log_that_is_too_long_is_incomplete_until_the_surplus_is_cut_off() -> None:
    log = ActionLog(max_entries=2)
    for buttons in (("a",), ("b",), ("c",), ("c",)):
        log.append(Sample(buttons))
    assert (expanded(log), log.complete, log.num_chunks) == ([("a",), ("b",)], False, 4)
    log.cut(3)
    assert not log.complete
    log.cut(2)
    assert (expanded(log), log.complete) == ([("a",), ("b",)], True)


def test_a_long_log_of_few_buttons_is_small() -> None:
    """Even after it was restored from a file, which repeats the buttons of every entry."""
    presses = itertools.islice(itertools.cycle(["up", "down", None]), ActionLog().max_entries)
    tracemalloc.start()
    try:
        log = ActionLog()
        for button in presses:
            log.append(Sample(() if button is None else (button,)))
        appended = tracemalloc.get_traced_memory()[0]
        data = log.to_data() | {"inputs": [(list(buttons), dict(axes)) for buttons, axes in log.to_data()["inputs"]]}
        before = tracemalloc.get_traced_memory()[0]
        again = ActionLog.from_data(data)
        loaded = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert expanded(again) == expanded(log)
    assert max(appended, loaded) < 40 * log.max_entries, "bytes: two numbers per entry, and the spare capacity of lists"
