"""Who may connect: by address, how many at once and how often; by token, who at all and how many at once. Owns these
counts; knows no sockets. For the event loop alone.

A connection that ended by its client's fault (a flood, a forged token, what is no message) costs its address as much
as many connections, so that who is thrown out does not come back at once.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable

from server.config import ServerConfig
from server.errors import CloseCode, ServerError, TooManyConnectionsError, UnauthorizedError
from server.http.token_bucket import TokenBucket

FAULT_COST = 16.0
REMEMBERED = 10_000
"""Addresses; beyond, those that owe nothing are forgotten."""


class ConnectionLimits:
    """`clock` gives seconds, on any monotonic clock."""

    def __init__(self, config: ServerConfig, clock: Callable[[], float]) -> None:
        self._config, self._clock = config, clock
        self._tokens = [token.encode() for token in config.tokens]
        self._open: Counter[str] = Counter()
        self._open_by_token: Counter[int] = Counter()
        self._allowances: dict[str, TokenBucket] = {}

    def enter(self, address: str) -> ConnectionPermit:
        """A client of this address connects. Raises TooManyConnectionsError."""
        config, now = self._config, self._clock()
        if address not in self._allowances:
            self._forget(now)
            burst = float(config.max_per_address)
            self._allowances[address] = TokenBucket(config.connections_per_s, burst, now)
        if self._open[address] >= config.max_per_address:
            raise TooManyConnectionsError(f"{self._open[address]} connections from your address are open; close one")
        if not self._allowances[address].take(now):
            raise TooManyConnectionsError("your address connects too often; wait a while")
        self._open[address] += 1
        return ConnectionPermit(self, address)

    def admit(self, token: str | None) -> int | None:
        """Which of the server's tokens this is, in a time that tells nothing; None where it asks for none. Raises
        UnauthorizedError, or TooManyConnectionsError."""
        if not self._tokens:
            return None
        given = (token or "").encode()
        which = [number for number, known in enumerate(self._tokens) if hmac.compare_digest(known, given)]
        if not which:
            raise UnauthorizedError("this server asks for a token; say hello with the one that you were given")
        if self._open_by_token[which[0]] >= self._config.max_per_token:
            raise TooManyConnectionsError(f"{self._config.max_per_token} sessions of this token are open; close one")
        self._open_by_token[which[0]] += 1
        return which[0]

    def leave(self, address: str, token: int | None, error: ServerError | None) -> None:
        """The visit is over, by this error of the client's or the server's if any."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
        if token is not None:
            self._open_by_token[token] -= 1
        if error is not None and error.close_code in (CloseCode.POLICY, CloseCode.TOO_BIG):
            self._allowances[address].charge(FAULT_COST, self._clock())

    def _forget(self, now: float) -> None:
        if len(self._allowances) >= REMEMBERED:
            self._allowances = {
                address: allowance
                for address, allowance in self._allowances.items()
                if self._open[address] or not allowance.is_full(now)
            }


class ConnectionPermit:
    """One connection. `leave` comes last, once."""

    def __init__(self, connection_limits: ConnectionLimits, address: str) -> None:
        self._limits, self._address = connection_limits, address
        self._token: int | None = None

    def show(self, token: str | None) -> None:
        """What `hello` has. Raises what `ConnectionLimits.admit` does."""
        self._token = self._limits.admit(token)

    def leave(self, error: ServerError | None) -> None:
        self._limits.leave(self._address, self._token, error)
