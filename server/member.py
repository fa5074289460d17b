"""A client that has joined: its session, its outbox, and whom to tell when it gets a slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.outbox import Outbox
from server.session import Session


@dataclass(slots=True)
class Member:
    """`on_admitted` is called once, from any thread."""

    session: Session
    outbox: Outbox
    on_admitted: Callable[[], None]
