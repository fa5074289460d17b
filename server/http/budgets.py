"""What an address may cost. Owns one budget per address for everything that takes the server's time, whatever it
arrives as, and the open connections of each address. Use it only on the event loop.

One unit is about a tenth of a millisecond of the event loop. What has arrived is charged at once (`Meter.spend`); if
nothing is left, the connection that has lately spent most is cut off, but none that spent less than an equal part of
the budget. Work that has yet to begin is refused earlier (`Meter.afford`), while a part of the budget remains for those
who play: a neighbour behind the same address who asks for too much costs them nothing.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable

from server.config import ServerConfig
from server.http.token_bucket import TokenBucket
from server.wire.protocol import ClientMessage, Fork, GetLog, Hello, Rewind, Save, Start, StartFrom

BURST_S = 2.0
"""An address may save up its budget of this many seconds."""

RESERVE = 0.25
"""The part of the savings that only what arrives over open connections may use."""

MAX_REMEMBERED = 10_000
"""Number of addresses above which those with all their savings are forgotten."""

SOCKETS_PER_CONNECTION = 2
"""Sockets of an address per stream that it may open: a page also loads files."""

BYTES_PER_UNIT = 4096
CONNECTION, TLS_HANDSHAKE, REQUEST, STREAM = 3.0, 20.0, 10.0, 15.0
READ, FRAME = 0.5, 1.0
MESSAGE = READ + FRAME
LOG, SLOT_JOB, PICTURE, FILE = 20.0, 25.0, 300.0, 1000.0


def cost_of(message: ClientMessage) -> float:
    """Return what a message costs beyond its arrival, for work that has yet to begin."""
    match message:
        case Start(start=start) | Hello(start=start):
            return _cost_of_start(start)
        case Rewind() | Fork() | Save():
            return SLOT_JOB
        case GetLog():
            return LOG
        case _:
            return 0.0


def _cost_of_start(start: StartFrom) -> float:
    return FILE if start.state is not None else PICTURE if start.image is not None else SLOT_JOB


def address_of(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 network that an IPv6 subscriber has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Budgets:
    """The budgets of all addresses. `clock` returns seconds of any monotonic clock."""

    def __init__(self, config: ServerConfig, clock: Callable[[], float]) -> None:
        self._rate, self._max_sockets = config.address_budget, SOCKETS_PER_CONNECTION * config.max_per_address
        self.clock = clock
        self.num_open = 0
        self._accounts: dict[str, _Account] = {}

    def open(self, host: str, cost: float = CONNECTION) -> Meter | None:
        """Return the meter of a new connection; None if its address has too many, or cannot afford it."""
        account = self.account(address_of(host))
        if len(account.meters) >= self._max_sockets or not account.afford(cost, self.clock()):
            return None
        return Meter(self, account)

    def account(self, address: str) -> _Account:
        """Return the account of an address."""
        if address not in self._accounts:
            if len(self._accounts) >= MAX_REMEMBERED:
                now, known = self.clock(), self._accounts.items()
                self._accounts = {key: known for key, known in known if known.meters or not known.bucket.is_full(now)}
            self._accounts[address] = _Account(address, self._rate, self.clock())
        return self._accounts[address]


class _Account:
    def __init__(self, address: str, rate: float, now: float) -> None:
        self.address = address
        self.rate = rate
        self.bucket = TokenBucket(rate, BURST_S * rate, now)
        self.reserve = RESERVE * BURST_S * rate
        self.meters: set[Meter] = set()

    def afford(self, cost: float, now: float) -> bool:
        return self.bucket.take(now, cost, keep=self.reserve)

    def cut_off_dearest(self, now: float) -> None:
        """Cut off the connection that has lately spent most, if it has spent more than an equal part of the budget.
        Together, connections that spend less than that can be paid for."""
        meters = [meter for meter in self.meters if not meter.is_cut]
        dearest = max(meters, key=lambda meter: meter.recently_spent(now), default=None)
        if dearest is not None and dearest.recently_spent(now) * len(meters) > self.rate:
            dearest.cut()


class Meter:
    """What one connection costs. `end` is set by whoever owns the connection, and called to cut it off."""

    def __init__(self, budgets: Budgets, account: _Account) -> None:
        self._budgets, self._account = budgets, account
        self._spent, self._spent_at = 0.0, budgets.clock()
        self.end: Callable[[], None] = _do_nothing
        self.is_cut = False
        self._is_open = True
        account.meters.add(self)
        budgets.num_open += 1

    @property
    def address(self) -> str:
        return self._account.address

    def identify(self, host: str) -> None:
        """Count the connection for `host` from now on: a proxy has said for whom it is."""
        if self._is_open and (address := address_of(host)) != self.address:
            self._account.meters.discard(self)
            self._account = self._budgets.account(address)
            self._account.meters.add(self)

    def spend(self, cost: float) -> bool:
        """Pay for something that has arrived. Return whether this connection may go on."""
        if self.is_cut:
            return False
        now = self._budgets.clock()
        self._spent, self._spent_at = self.recently_spent(now) + cost, now
        if not self._account.bucket.take(now, cost):
            self._account.cut_off_dearest(now)
        return not self.is_cut

    def afford(self, cost: float) -> bool:
        """Pay for something that has yet to begin. Return whether it may."""
        return not self.is_cut and self._account.afford(cost, self._budgets.clock())

    def give_back(self, amount: float) -> None:
        """Return units for what the server itself has caused the client to send."""
        now = self._budgets.clock()
        self._spent, self._spent_at = max(0.0, self.recently_spent(now) - amount), now
        self._account.bucket.give(amount, now)

    def recently_spent(self, now: float) -> float:
        """Return the units spent lately; what is a second older counts by a factor of e less."""
        return self._spent * math.exp(self._spent_at - now)

    def cut(self) -> None:
        """End the connection because its address costs too much."""
        if not self.is_cut:
            self.is_cut = True
            self.end()

    def close(self) -> None:
        """Count the connection as closed; again, without effect."""
        if self._is_open:
            self._is_open = False
            self._account.meters.discard(self)
            self._budgets.num_open -= 1
            self.end = _do_nothing


def _do_nothing() -> None:
    """Stand for the end of a connection that has none yet."""
