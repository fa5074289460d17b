"""Tickets: what a player shows to resume a session. Owns their form and how secrets are compared; knows no sessions."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from server.errors import UnknownTicketError


@dataclass(frozen=True, slots=True)
class Ticket:
    """The key of a session and the secret that proves whose it is."""

    key: str
    secret: str

    @staticmethod
    def of(text: str) -> Ticket:
        """Return the ticket that `str` wrote. Raise UnknownTicketError."""
        key, dot, secret = text.partition(".")
        if not (key and dot and secret):
            raise UnknownTicketError("this is not a ticket of this server; say hello without it")
        return Ticket(key, secret)

    def __str__(self) -> str:
        return f"{self.key}.{self.secret}"

    def matches(self, other: Ticket) -> bool:
        """Return whether both name the same session with the same secret. Secrets are compared in constant time."""
        return self.key == other.key and hmac.compare_digest(self.secret.encode(), other.secret.encode())


def new_ticket(key: str) -> Ticket:
    """Return a ticket for the session `key` with a new secret."""
    return Ticket(key, secrets.token_urlsafe(24))
