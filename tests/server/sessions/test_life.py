"""The table of a session's phases: every sequence of possible events keeps its invariants, and no other event changes
anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.sessions.life import HELD, TRANSITIONS, WITH_SLOT, WITHOUT_CONNECTION, Event, Phase, SessionLife

CHANGES: dict[Event, Callable[[SessionLife], object]] = {
    Event.ADMITTED: lambda life: life.admit(3),
    Event.RESTORED: SessionLife.restored,
    Event.FILL_BEGUN: SessionLife.begin_fill,
    Event.FILLED: SessionLife.filled,
    Event.COPY_BEGUN: SessionLife.begin_copy,
    Event.COPIED: SessionLife.copied,
    Event.CONNECTION_LOST: lambda life: life.lose_connection(7.0),
    Event.RECONNECTED: SessionLife.reconnect,
    Event.SUSPENDED: SessionLife.suspend,
    Event.RESUMED: lambda life: life.resume(exact=True),
    Event.RESTARTED: lambda life: life.resume(exact=False),
    Event.ENDED: SessionLife.end,
}


class Life(RuleBasedStateMachine):
    """Any events in any order; a model that knows only who should have a slot, a connection and a filled slot."""

    def __init__(self) -> None:
        super().__init__()
        self.life = SessionLife()
        self.has_slot = self.is_held = self.is_filled = False

    @initialize(suspended=st.booleans())
    def begin(self, *, suspended: bool) -> None:
        if suspended:
            self.life = SessionLife(Phase.SUSPENDED)

    @rule(event=st.sampled_from(Event))
    def happen(self, event: Event) -> None:
        before, slot, lost_at = self.life.phase, self.life.slot, self.life.lost_at
        if not self.life.allows(event):
            with pytest.raises(AssertionError, match=f"{event.name} is impossible .* {before.name}"):
                CHANGES[event](self.life)
            assert (self.life.phase, self.life.slot, self.life.lost_at) == (before, slot, lost_at)
            return
        freed = CHANGES[event](self.life)
        assert self.life.phase is TRANSITIONS[before, event]
        if event is Event.ADMITTED:
            self.has_slot, self.is_filled = True, False
        elif event in (Event.SUSPENDED, Event.ENDED):
            assert freed == slot, "whoever leaves a slot gives it back, once"
            assert event is Event.ENDED or not slot or self.is_filled, "only what a slot holds can be taken out of it"
            self.has_slot = self.is_held = self.is_filled = False
        elif event is Event.CONNECTION_LOST:
            self.is_held = True
        elif event is Event.RECONNECTED:
            self.is_held = False
        elif event in (Event.RESTORED, Event.FILLED):
            self.is_filled = True

    @invariant()
    def a_slot_exactly_in_the_phases_with_one(self) -> None:
        assert (self.life.slot is not None) == self.life.has_slot == (self.life.phase in WITH_SLOT) == self.has_slot

    @invariant()
    def a_time_of_loss_exactly_in_the_held_phases(self) -> None:
        held = self.life.phase in WITHOUT_CONNECTION
        assert (self.life.lost_at is not None) == self.life.is_held == held == self.is_held

    @invariant()
    def nothing_is_stepped_copied_or_suspended_that_is_not_in_its_slot(self) -> None:
        life = self.life
        if life.may_step or life.may_copy or life.may_suspend:
            assert self.has_slot
            assert self.is_filled
        assert not (life.may_step and self.is_held), "nobody would see the frames"
        assert not (life.may_suspend and not self.is_held)
        assert not (life.is_empty and self.is_filled)

    @invariant()
    def at_most_one_slot_job_can_run(self) -> None:
        busy = self.life.phase.name.startswith(("FILLING", "COPYING"))
        assert not busy or not (self.life.may_fill or self.life.may_copy or self.life.may_step or self.life.may_restore)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_every_phase_can_be_reached_and_a_session_can_always_end() -> None:
    reached, todo = {Phase.QUEUED}, [Phase.QUEUED]
    while todo:
        phase = todo.pop()
        following = {after for (before, _), after in TRANSITIONS.items() if before is phase} - reached
        reached |= following
        todo += following
    assert reached == set(Phase)
    assert {phase for phase in Phase if (phase, Event.ENDED) in TRANSITIONS} == reached - {Phase.SUSPENDED, Phase.ENDED}


def test_slot_jobs_do_not_depend_on_the_connection() -> None:
    for (phase, event), after in TRANSITIONS.items():
        if phase in HELD and after in HELD and event not in (Event.RECONNECTED, Event.CONNECTION_LOST):
            assert TRANSITIONS[HELD[phase], event] is HELD[after]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase in WITH_SLOT], ids=lambda phase: phase.name)
def test_a_life_begins_without_a_slot(phase: Phase) -> None:
    with pytest.raises(AssertionError):
        SessionLife(phase)
