"""Branches that wait to be started from. Owns their tickets and how long they are kept; times are passed in."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.errors import UnknownBranchError
from server.sessions.action_log import ActionLog
from server.sessions.lock import EngineLock
from server.sessions.pacing import NEVER

if TYPE_CHECKING:
    from world import RolloutState

LIFETIME_S = 120.0
MAX_BRANCHES = 32


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


class BranchRegistry:
    """The newest `MAX_BRANCHES` branches, each kept for `LIFETIME_S`. Every method needs `lock`."""

    def __init__(self, lock: EngineLock) -> None:
        self._lock = lock
        self._branches: OrderedDict[str, tuple[float, Branch]] = OrderedDict()

    def put(self, branch: Branch, now: float) -> str:
        """Keep a branch. Return the ticket to start from it."""
        self.drop_expired(now)
        if len(self._branches) >= MAX_BRANCHES:
            self._branches.popitem(last=False)
        ticket = secrets.token_urlsafe(16)
        self._branches[ticket] = (now + LIFETIME_S, branch)
        return ticket

    def get(self, ticket: str, world: str, now: float) -> Branch:
        """Return the branch of a ticket. Raise UnknownBranchError."""
        self.drop_expired(now)
        _, branch = self._branches.get(ticket, (0.0, None))
        if branch is None or branch.world != world:
            raise UnknownBranchError(
                f"branch {ticket[:40]!r}: {world} has no branch of that ticket; "
                f"branches are kept for {LIFETIME_S:g} s, fork again"
            )
        return branch

    def expires_at(self) -> float:
        """Return when the oldest branch expires; NEVER without one."""
        self._lock.assert_held()
        return next(iter(self._branches.values()))[0] if self._branches else NEVER

    def drop_expired(self, now: float) -> None:
        """Drop the branches whose time is over."""
        while self.expires_at() <= now:
            self._branches.popitem(last=False)
