"""How much slot jobs delay those who play, as arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import ServerConfig
from server.engine.engine import Engine
from server.engine.job_share import MAX_CREDIT_S, SHARE, JobShare
from server.sessions.pacing import NEVER

FOREVER_S = 20.0


def simulate(period_s: float, step_s: float, part_s: float) -> tuple[float, float]:
    """Let jobs go on for ever beside one session. Return the share of time that steps were late, and that jobs had."""
    share, now, due_at, late_s, parts_s = JobShare(), 0.0, 0.0, 0.0, 0.0
    while now < FOREVER_S:
        if now >= due_at:
            late_s += now - due_at
            now += step_s
            due_at = max(due_at + period_s, now)
        if share.may_run(now, due_at):
            began, now = now, now + part_s
            parts_s += part_s
            share.note(began, now, due_at)
        else:
            now = max(now, min(due_at, share.allowed_at(now, due_at)))
    return late_s / now, parts_s / now


@given(period_s=st.floats(0.01, 0.1), load=st.floats(0.1, 0.9), part=st.floats(0.1, 1.0))
def test_steps_are_late_for_a_bounded_share_of_the_time_and_jobs_go_on(
    period_s: float, load: float, part: float
) -> None:
    step_s = period_s * load
    late, parts = simulate(period_s, step_s, step_s * part)
    assert late <= SHARE + (MAX_CREDIT_S + 2 * step_s) / FOREVER_S
    assert parts >= SHARE / 2


def test_a_full_machine_gives_jobs_their_share_and_no_more() -> None:
    """Steps that take as long as their period leave no gap."""
    late, parts = simulate(0.03, 0.03, 0.01)
    assert 0.8 * SHARE <= parts <= 1.2 * SHARE
    assert late <= 1.2 * SHARE


def test_while_nobody_plays_jobs_have_all_the_time() -> None:
    share, now = JobShare(), 0.0
    for _ in range(100):
        assert share.may_run(now, float("inf"))
        share.note(now, now + 1.0, float("inf"))
        now += 1.0


def test_what_is_not_due_is_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest parts say how long the next one takes; looking whether there is one is no part."""
    noted: list[tuple[float, ...]] = []
    monkeypatch.setattr(JobShare, "note", lambda _, *times: noted.append(times))
    jobs = Engine(ServerConfig(), {})._slot_jobs
    done: list[str] = []
    jobs.in_spare_time(lambda: done.append("not due"), lambda: NEVER)
    jobs.in_spare_time(lambda: done.append("due"), lambda: -NEVER)
    assert (done, len(noted)) == (["due"], 1)
