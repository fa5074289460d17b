"""Branches that wait to be started from. Owns their tickets and how long they are kept; time is handed in."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.engine.scheduler import NEVER
from server.errors import UnknownBranchError
from server.sessions.action_log import ActionLog

if TYPE_CHECKING:
    from world import RolloutState

LIFETIME_S = 120.0
MAX_BRANCHES = 32


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What a run began with: the world's start of that index (None: a picture) and the seed of its noise."""

    start_index: int | None
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Branch:
    """A run at one of its frames, as data: the rollout's state, and what has led to it."""

    world: str
    state: RolloutState
    run_frame: int
    origin: Origin
    log: ActionLog


class Branches:
    """The newest `MAX_BRANCHES`, each for `LIFETIME_S`. Not thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Branch]] = OrderedDict()

    def put(self, branch: Branch, now: float) -> str:
        """The ticket to start from it."""
        self.forget(now)
        if len(self._kept) >= MAX_BRANCHES:
            self._kept.popitem(last=False)
        ticket = secrets.token_urlsafe(16)
        self._kept[ticket] = (now + LIFETIME_S, branch)
        return ticket

    def get(self, ticket: str, world: str, now: float) -> Branch:
        """Raises UnknownBranchError."""
        self.forget(now)
        _, branch = self._kept.get(ticket, (0.0, None))
        if branch is None or branch.world != world:
            raise UnknownBranchError(
                f"branch {ticket[:40]!r}: {world} has none of that ticket; kept for {LIFETIME_S:g} s, fork again"
            )
        return branch

    def expires_at(self) -> float:
        """When the oldest is to be forgotten."""
        return next(iter(self._kept.values()))[0] if self._kept else NEVER

    def forget(self, now: float) -> None:
        """Those whose time is over."""
        while self.expires_at() <= now:
            self._kept.popitem(last=False)
