"""Branches that wait to be started from. Owns their tickets and how long they are kept; times are passed in."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from server.errors import UnknownBranchError
from server.sessions.action_log import ActionLog
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER

if TYPE_CHECKING:
    from world import RolloutState

LIFETIME_S = 120.0
MAX_BRANCHES = 32
SHARE_OF_ADDRESS = 0.25
"""How much of the number and of the memory the branches of one address may take."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What a run began with: the index of the world's start (None for a picture) and the seed of its noise."""

    start_index: int | None
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Branch:
    """A run at one of its frames, as data: the rollout's state, and what led to it."""

    world: str
    state: RolloutState
    run_frame: int
    origin: Origin
    log: ActionLog


@dataclass(frozen=True, slots=True)
class _Kept:
    expires_at: float
    branch: Branch
    address: str
    num_bytes: int


class BranchRegistry:
    """The newest `MAX_BRANCHES` branches in at most `max_bytes`, each kept for `LIFETIME_S`. Every method needs
    `lock`."""

    def __init__(self, lock: EngineLock, max_bytes: int) -> None:
        self._lock, self._max_bytes = lock, max_bytes
        self._branches: OrderedDict[str, _Kept] = OrderedDict()

    def put(self, branch: Branch, now: float, address: str = "") -> str:
        """Keep a branch of a player of this address; older ones make room. Return the ticket to start from it. A branch
        that is larger than an address' share is kept without its K/V."""
        self.drop_expired(now)
        if branch.state.num_bytes > self._max_bytes * SHARE_OF_ADDRESS:
            branch = replace(branch, state=branch.state.without_kv())
        ticket = secrets.token_urlsafe(16)
        self._branches[ticket] = _Kept(now + LIFETIME_S, branch, address, branch.state.num_bytes)
        self._make_room([key for key, kept in self._branches.items() if kept.address == address], SHARE_OF_ADDRESS)
        self._make_room(list(self._branches), 1.0)
        return ticket

    def _make_room(self, tickets: list[str], share: float) -> None:
        """Drop the oldest of these until they take no more than this share."""
        num_bytes = sum(self._branches[ticket].num_bytes for ticket in tickets)
        for number, ticket in enumerate(tickets):
            if len(tickets) - number <= MAX_BRANCHES * share and num_bytes <= self._max_bytes * share:
                break
            num_bytes -= self._branches.pop(ticket).num_bytes

    def get(self, ticket: str, world: str, now: float) -> Branch:
        """Return the branch of a ticket. Raise UnknownBranchError."""
        self.drop_expired(now)
        kept = self._branches.get(ticket)
        if kept is None or kept.branch.world != world:
            raise UnknownBranchError(
                f"branch {ticket[:40]!r}: {world} has no branch of that ticket; "
                f"branches are kept for {LIFETIME_S:g} s, fork again"
            )
        return kept.branch

    def expires_at(self) -> float:
        """Return when the oldest branch expires; NEVER without one."""
        self._lock.assert_held()
        return next(iter(self._branches.values())).expires_at if self._branches else NEVER

    def drop_expired(self, now: float) -> None:
        """Drop the branches whose time is over."""
        while self.expires_at() <= now:
            self._branches.popitem(last=False)
