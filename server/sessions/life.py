"""A session's phases and the one table of their transitions. Owns the session's slot and the time its connection was
lost; knows no clocks (times are passed in), threads, messages or tensors.

What may happen to a session (a step, a slot job, being suspended) is a question to its phase. A transition that is
not in the table is a fault of the caller and raises.
"""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """Where a session is in its life. `…_HELD`: its connection is lost and its slot is kept for a while."""

    QUEUED = auto()  # no slot yet; it will begin with a start
    QUEUED_SUSPENDED = auto()  # no slot yet; its suspended state will be restored
    EMPTY = auto()  # a slot that holds nothing yet
    EMPTY_HELD = auto()
    RESTORING = auto()  # its suspended state is to be put into its slot
    RESTORING_HELD = auto()
    FILLING = auto()  # a start, rewind or branch is being put into its slot
    FILLING_HELD = auto()
    PLAYING = auto()  # its slot holds its rollout
    PLAYING_HELD = auto()
    COPYING = auto()  # a branch or file of its rollout is being made
    COPYING_HELD = auto()
    SUSPENDED = auto()  # no slot; its state is in memory or in the store
    ENDED = auto()


class Event(Enum):
    """What changes a session's phase."""

    ADMITTED = auto()
    RESTORED = auto()
    FILL_BEGUN = auto()
    FILLED = auto()
    COPY_BEGUN = auto()
    COPIED = auto()
    CONNECTION_LOST = auto()
    RECONNECTED = auto()
    SUSPENDED = auto()
    RESUMED = auto()  # with its exact state
    RESTARTED = auto()  # without it: a new run begins from the last state that is known
    ENDED = auto()


HELD = {
    Phase.EMPTY: Phase.EMPTY_HELD,
    Phase.RESTORING: Phase.RESTORING_HELD,
    Phase.FILLING: Phase.FILLING_HELD,
    Phase.PLAYING: Phase.PLAYING_HELD,
    Phase.COPYING: Phase.COPYING_HELD,
}
"""Each phase with a slot and a connection → the same phase without the connection."""

SLOT_JOBS = {
    (Phase.RESTORING, Event.RESTORED): Phase.PLAYING,
    (Phase.EMPTY, Event.FILL_BEGUN): Phase.FILLING,
    (Phase.PLAYING, Event.FILL_BEGUN): Phase.FILLING,
    (Phase.FILLING, Event.FILLED): Phase.PLAYING,
    (Phase.PLAYING, Event.COPY_BEGUN): Phase.COPYING,
    (Phase.COPYING, Event.COPIED): Phase.PLAYING,
}
"""These happen in a slot whether its player is connected or not."""

TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.QUEUED, Event.ADMITTED): Phase.EMPTY,
    (Phase.QUEUED_SUSPENDED, Event.ADMITTED): Phase.RESTORING,
    (Phase.QUEUED, Event.RECONNECTED): Phase.QUEUED,
    (Phase.QUEUED_SUSPENDED, Event.RECONNECTED): Phase.QUEUED_SUSPENDED,
    (Phase.QUEUED_SUSPENDED, Event.SUSPENDED): Phase.SUSPENDED,
    (Phase.PLAYING_HELD, Event.SUSPENDED): Phase.SUSPENDED,
    (Phase.SUSPENDED, Event.RESUMED): Phase.QUEUED_SUSPENDED,
    (Phase.SUSPENDED, Event.RESTARTED): Phase.QUEUED,
    **SLOT_JOBS,
    **{(HELD[phase], event): HELD[after] for (phase, event), after in SLOT_JOBS.items()},
    **{(phase, Event.CONNECTION_LOST): held for phase, held in HELD.items()},
    **{(held, Event.CONNECTION_LOST): held for held in HELD.values()},
    **{(phase, Event.RECONNECTED): phase for phase in HELD},  # another connection takes the session over
    **{(held, Event.RECONNECTED): phase for phase, held in HELD.items()},
    **{(phase, Event.ENDED): Phase.ENDED for phase in Phase if phase not in (Phase.SUSPENDED, Phase.ENDED)},
}

WITH_SLOT = frozenset((*HELD, *HELD.values()))
WITHOUT_CONNECTION = frozenset(HELD.values())


class SessionLife:
    """The phase of one session, with the phase's data; only its methods change them, and each is one transition."""

    def __init__(self, phase: Phase = Phase.QUEUED) -> None:
        """Begin in `phase`, one without a slot."""
        assert phase not in WITH_SLOT, phase
        self._phase = phase
        self._slot: int | None = None
        self._lost_at: float | None = None

    # ---- questions

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def slot(self) -> int | None:
        """Return the session's slot; None in a phase without one."""
        return self._slot

    @property
    def lost_at(self) -> float | None:
        """Return when the connection was lost; None unless the session is held in its slot."""
        return self._lost_at

    @property
    def has_slot(self) -> bool:
        return self._phase in WITH_SLOT

    @property
    def is_held(self) -> bool:
        """Return whether the session waits in its slot for its player to reconnect."""
        return self._phase in WITHOUT_CONNECTION

    @property
    def is_empty(self) -> bool:
        """Return whether nothing has been put into the session's slot yet, and nothing waits to be restored."""
        return self._phase in (Phase.QUEUED, Phase.EMPTY, Phase.EMPTY_HELD)

    @property
    def may_step(self) -> bool:
        """Return whether the scheduler may step the session."""
        return self._phase is Phase.PLAYING

    @property
    def may_restore(self) -> bool:
        return self.allows(Event.RESTORED)

    @property
    def may_fill(self) -> bool:
        return self.allows(Event.FILL_BEGUN)

    @property
    def may_copy(self) -> bool:
        return self.allows(Event.COPY_BEGUN)

    @property
    def may_suspend(self) -> bool:
        """Return whether the session may be taken out of its slot."""
        return self._phase is Phase.PLAYING_HELD

    def allows(self, event: Event) -> bool:
        """Return whether `event` is possible now."""
        return (self._phase, event) in TRANSITIONS

    # ---- transitions

    def admit(self, slot: int) -> None:
        """Give the session `slot`."""
        self._change(Event.ADMITTED)
        self._slot = slot

    def restored(self) -> None:
        self._change(Event.RESTORED)

    def begin_fill(self) -> None:
        self._change(Event.FILL_BEGUN)

    def filled(self) -> None:
        self._change(Event.FILLED)

    def begin_copy(self) -> None:
        self._change(Event.COPY_BEGUN)

    def copied(self) -> None:
        self._change(Event.COPIED)

    def lose_connection(self, now: float) -> None:
        """Keep the slot for a player whose connection was lost; again, to change the time of the loss."""
        self._change(Event.CONNECTION_LOST)
        self._lost_at = now

    def reconnect(self) -> None:
        self._change(Event.RECONNECTED)
        self._lost_at = None

    def suspend(self) -> int | None:
        """Leave the slot or the queue with a state to restore later. Return the slot that is free by that, if any."""
        return self._leave_slot(Event.SUSPENDED)

    def resume(self, *, exact: bool) -> None:
        """Go back to the queue; exact: there is a state to restore."""
        self._change(Event.RESUMED if exact else Event.RESTARTED)

    def end(self) -> int | None:
        """End the session. Return the slot that is free by that, if any."""
        return self._leave_slot(Event.ENDED)

    def _leave_slot(self, event: Event) -> int | None:
        self._change(event)
        slot, self._slot, self._lost_at = self._slot, None, None
        return slot

    def _change(self, event: Event) -> None:
        """Raise AssertionError for a transition that is not in the table; nothing has changed then."""
        after = TRANSITIONS.get((self._phase, event))
        if after is None:
            raise AssertionError(f"{event.name} is impossible for a session in phase {self._phase.name}")
        self._phase = after
