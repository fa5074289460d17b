"""A client that has joined: its session, its outbox, its ticket, and whom to tell when it gets a slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.sessions.session import Session
from server.state.suspended_sessions import SuspendedSession, Ticket
from server.wire.send_queue import SendQueue


@dataclass(slots=True)
class SessionEntry:
    """`on_admitted` is called once, from any thread. parked: what is to be put into its slot before anything else;
    last_frame: what its player has seen of it.
    filled: whether its slot holds it. kept_at, kept_as: when it was written to the store, and as what (see `standing`);
    times_claimed: how often it was not, since another server seems to have it."""

    session: Session
    send_queue: SendQueue
    on_admitted: Callable[[], None]
    ticket: Ticket
    suspended: SuspendedSession | None = None
    last_frame: int | None = None
    filled: bool = False
    kept_at: float = 0.0
    kept_as: tuple[int, int, int] | None = None
    times_claimed: int = 0

    @property
    def standing(self) -> tuple[int, int, int]:
        """What changes whenever there is something new to keep."""
        return self.session.generation, self.session.run.number, self.session.run.frame
