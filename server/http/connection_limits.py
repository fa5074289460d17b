"""Limits on who may connect: by address, how many at once and how often; by token, who at all and how many at once.

Owns these counts; knows no sockets. Use it only on the event loop.

A connection that ended through its client's fault (a flood, a wrong token, bytes that are no message) counts as many
connections of its address, so that a client that was cut off cannot come straight back.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable

from server.config import ServerConfig
from server.errors import CloseCode, ServerError, TooManyConnectionsError, UnauthorizedError
from server.http.budgets import Meter, address_of
from server.http.token_bucket import TokenBucket

FAULT_COST = 16.0
MAX_REMEMBERED = 10_000
"""Number of addresses above which those with a full allowance are forgotten."""


class ConnectionLimits:
    """The open connections and the allowances of all addresses and tokens.

    `clock` returns seconds of any monotonic clock.
    """

    def __init__(self, config: ServerConfig, clock: Callable[[], float]) -> None:
        self._config, self._clock = config, clock
        self._tokens = [token.encode() for token in config.tokens]
        self._open: Counter[str] = Counter()
        self._open_by_token: Counter[int] = Counter()
        self._allowances: dict[str, TokenBucket] = {}

    def connect(self, host: str, meter: Meter | None = None) -> ConnectionPermit:
        """Count a new connection from `host` and return its permit. meter: what it costs is charged there. Raises
        TooManyConnectionsError."""
        config, now, address = self._config, self._clock(), address_of(host)
        if address not in self._allowances:
            self._forget_idle_addresses(now)
            burst = float(config.max_per_address)
            self._allowances[address] = TokenBucket(config.connections_per_s, burst, now)
        if self._open[address] >= config.max_per_address:
            raise TooManyConnectionsError(f"{self._open[address]} connections from your address are open; close one")
        if not self._allowances[address].take(now):
            raise TooManyConnectionsError("your address connects too often; wait a while")
        self._open[address] += 1
        return ConnectionPermit(self, address, meter)

    def check_token(self, token: str | None) -> int | None:
        """Count a session for `token` and return the token's index, or None if the server requires no token.

        The comparison takes constant time. Raises UnauthorizedError or TooManyConnectionsError.
        """
        if not self._tokens:
            return None
        encoded = (token or "").encode()
        matching = [index for index, known in enumerate(self._tokens) if hmac.compare_digest(known, encoded)]
        if not matching:
            raise UnauthorizedError("this server requires a token; send the one you were given in hello")
        index = matching[0]
        if self._open_by_token[index] >= self._config.max_per_token:
            raise TooManyConnectionsError(f"{self._config.max_per_token} sessions of this token are open; close one")
        self._open_by_token[index] += 1
        return index

    def release(self, address: str, token: int | None, error: ServerError | None) -> None:
        """Count a connection as closed. error: what ended it, if anything did."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
        if token is not None:
            self._open_by_token[token] -= 1
        if error is not None and error.close_code in (CloseCode.POLICY, CloseCode.TOO_BIG):
            self._allowances[address].charge(FAULT_COST, self._clock())

    def _forget_idle_addresses(self, now: float) -> None:
        if len(self._allowances) >= MAX_REMEMBERED:
            self._allowances = {
                address: allowance
                for address, allowance in self._allowances.items()
                if self._open[address] or not allowance.is_full(now)
            }


class ConnectionPermit:
    """The right to hold one connection of `address`. Call `release` exactly once, at the end."""

    def __init__(self, connection_limits: ConnectionLimits, address: str, meter: Meter | None = None) -> None:
        self._limits, self.address, self._meter = connection_limits, address, meter
        self._token: int | None = None

    def afford(self, cost: float) -> bool:
        """Pay for work that has yet to begin. Return whether the address can."""
        return self._meter is None or self._meter.afford(cost)

    def give_back(self, amount: float) -> None:
        """Return units for what the server itself has caused the client to send."""
        if self._meter is not None:
            self._meter.give_back(amount)

    def authenticate(self, token: str | None) -> None:
        """Check the token of `hello`. Raises what `ConnectionLimits.check_token` raises."""
        self._token = self._limits.check_token(token)

    def release(self, error: ServerError | None) -> None:
        self._limits.release(self.address, self._token, error)
