"""Players who pause and come back, in any order with those who join and leave: no slot and no place is lost."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.admission.admission_queue import AdmissionQueue, Admitted, Waiting

NUM_SLOTS = 3


class ComingBack(RuleBasedStateMachine):
    """Three slots and time for a changing number of players. A model of who has a slot, who plays and who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.max_playing = NUM_SLOTS
        self.queue = AdmissionQueue(NUM_SLOTS, 100, self.has_time)
        self.count = 0
        self.slots: dict[str, int] = {}
        self.playing: set[str] = set()
        self.waiting: set[str] = set()

    def has_time(self, keys: Sequence[str]) -> bool:
        return len(self.playing | set(keys)) <= self.max_playing

    def apply(self, places: list[Admitted | Waiting]) -> None:
        for place in places:
            if isinstance(place, Waiting):
                assert place.key in self.waiting
                continue
            assert self.slots.get(place.key, place.slot) == place.slot, "who comes back keeps the slot"
            assert place.slot not in {slot for key, slot in self.slots.items() if key != place.key}
            self.slots[place.key] = place.slot
            self.waiting.discard(place.key)
            self.playing.add(place.key)

    def note(self, place: Admitted | Waiting) -> None:
        if isinstance(place, Waiting):
            self.waiting.add(place.key)
        self.apply([place])

    @rule()
    def join(self) -> None:
        self.count += 1
        self.note(self.queue.join(f"k{self.count}", 0.0))

    @precondition(lambda self: self.playing)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        self.playing.discard(data.draw(st.sampled_from(sorted(self.playing))))

    @precondition(lambda self: self.slots.keys() - self.playing)
    @rule(data=st.data(), withdraws=st.booleans())
    def come_back(self, data: st.DataObject, withdraws: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.slots.keys() - self.playing)))
        self.note(self.queue.ask_again(key))
        if withdraws and key in self.waiting:
            self.queue.withdraw(key)
            self.waiting.discard(key)

    @precondition(lambda self: self.slots or self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted({*self.slots, *self.waiting})))
        self.slots.pop(key, None)
        self.playing.discard(key)
        self.waiting.discard(key)
        self.apply(self.queue.leave(key, 1.0))

    @rule(max_playing=st.integers(1, NUM_SLOTS))
    def time_changes(self, max_playing: int) -> None:
        self.max_playing = max_playing

    @rule()
    def look_again(self) -> None:
        self.apply(self.queue.admit_more(1.0))
        free = NUM_SLOTS - len(self.slots)
        could_play = {key for key in self.waiting if key in self.slots or free}
        assert not could_play or not self.has_time([next(iter(could_play))]), "nobody waits who could play"

    @invariant()
    def all_places_are_known(self) -> None:
        assert (self.queue.num_active, self.queue.num_waiting) == (len(self.slots), len(self.waiting))


ComingBack.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestComingBack = ComingBack.TestCase
