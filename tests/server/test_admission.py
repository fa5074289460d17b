"""Slots and the queue, for any coming and going."""

from __future__ import annotations

import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from server.admission import Admitted, Lobby, Waiting
from server.errors import ServerFullError


class Coming(RuleBasedStateMachine):
    """Three slots, two places in the queue; a model of who is where."""

    members = Bundle("members")

    def __init__(self) -> None:
        super().__init__()
        self.lobby = Lobby(3, 2)
        self.count = 0
        self.slots: dict[str, int] = {}
        self.queue: list[str] = []

    def heed(self, places: list[Admitted | Waiting]) -> None:
        for place in places:
            if isinstance(place, Admitted):
                assert place.slot not in self.slots.values()
                if place.key in self.queue:
                    assert self.queue.pop(0) == place.key
                self.slots[place.key] = place.slot
            else:
                assert self.queue[place.position - 1] == place.key

    @rule(target=members)
    def join(self) -> str:
        self.count += 1
        key = f"k{self.count}"
        if len(self.slots) == 3 and len(self.queue) == 2:
            with pytest.raises(ServerFullError):
                self.lobby.join(key, self.count)
            return key
        place = self.lobby.join(key, self.count)
        if isinstance(place, Waiting):
            self.queue.append(key)
        self.heed([place])
        return key

    @rule(key=consumes(members))
    def leave(self, key: str) -> None:
        self.slots.pop(key, None)
        if key in self.queue:
            self.queue.remove(key)
        self.heed(self.lobby.leave(key, self.count))

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        assert self.lobby.num_active == len(self.slots)
        assert self.lobby.num_waiting == len(self.queue)
        assert not self.queue or len(self.slots) == 3


TestComing = Coming.TestCase


def test_the_estimate_follows_from_how_long_players_stayed() -> None:
    lobby = Lobby(2, 4)
    lobby.join("a", 0.0)
    lobby.join("b", 0.0)
    assert lobby.join("c", 0.0) == Waiting("c", 1, None)
    lobby.leave("a", 60.0)
    assert lobby.join("d", 60.0) == Waiting("d", 1, 30.0)
