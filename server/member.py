"""A client that has joined: its session, its outbox, its ticket, and whom to tell when it gets a slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.outbox import Outbox
from server.parking import Parked, Ticket
from server.session import Session


@dataclass(slots=True)
class Member:
    """`on_admitted` is called once, from any thread. parked: what is to be put into its slot before anything else;
    last_frame: what its player has seen of it.
    filled: whether its slot holds it. kept_at, kept_as: when it was written to the store, and as what (see `standing`);
    times_claimed: how often it was not, since another server seems to have it."""

    session: Session
    outbox: Outbox
    on_admitted: Callable[[], None]
    ticket: Ticket
    parked: Parked | None = None
    last_frame: int | None = None
    filled: bool = False
    kept_at: float = 0.0
    kept_as: tuple[int, int, int] | None = None
    times_claimed: int = 0

    @property
    def standing(self) -> tuple[int, int, int]:
        """What changes whenever there is something new to keep."""
        return self.session.generation, self.session.run.number, self.session.run.frame
