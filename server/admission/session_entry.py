"""A client that has joined: its session, its send queue, its ticket, and the callback for when it gets a slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.sessions.session import Session
from server.state.stored_session import SuspendedSession
from server.state.tickets import Ticket
from server.wire.protocol import Play
from server.wire.send_queue import SendQueue


@dataclass(frozen=True, slots=True)
class Client:
    """Whoever is at the other end of a connection. on_admitted: called once its session has a slot, from any thread.
    address: what its share of the places is counted by; "" counts it for itself."""

    send_queue: SendQueue
    on_admitted: Callable[[], None]
    address: str = ""


@dataclass(slots=True)
class SessionEntry:
    """One entry of the session registry.

    on_admitted: called once, from any thread. address: of its player. suspended: what is restored into its slot in the
    phases QUEUED_SUSPENDED and RESTORING. last_frame: the newest frame its player has, as its client said when it
    resumed. saved_at, saved_version: when it was last written to the store, and which `version`. times_claimed: how
    often the store refused a write because another server seems to have the session. returning: its player's wish to
    play on after a pause, while it waits in the queue for time.
    """

    session: Session
    send_queue: SendQueue
    on_admitted: Callable[[], None]
    ticket: Ticket
    address: str = ""
    suspended: SuspendedSession | None = None
    last_frame: int | None = None
    saved_at: float = 0.0
    saved_version: tuple[int, int, int] | None = None
    times_claimed: int = 0
    returning: Play | None = None

    @property
    def version(self) -> tuple[int, int, int]:
        """Return numbers that change whenever there is something new to write to the store."""
        return self.session.generation, self.session.run.number, self.session.run.frame
