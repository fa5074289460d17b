"""A suspended session, and how it becomes bytes for the store and is read again. Knows no slots and no connections."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import msgpack

from server.errors import ServerError, UnknownTicketError
from server.sessions.branches import Branch
from server.sessions.session import Session
from server.state import format_1
from server.state.state_owner import StateOwner
from server.state.store import StoredSession
from server.state.stored_form import checked
from server.state.tickets import Ticket
from world.errors import ShapeError, StateError
from world.rollout.snapshots import from_bytes, to_bytes
from world.rollout.timeline import RolloutState

logger = logging.getLogger(__name__)

FORMAT = 3
"""Of a stored session's content. Content without a format is of format 1. Up to format 2 the fingerprint was
`StateOwner.former_fingerprint`."""


@dataclass(frozen=True, slots=True)
class SuspendedSession:
    """A session with its rollout's state and the frames (index, message) that its player may not have received.

    It is not `exact` if it is a copy of a running session: without K/V, and older than what its player has seen.
    address: of its player.
    """

    session: Session
    ticket: Ticket
    state: RolloutState
    frames: list[tuple[int, bytes]]
    address: str = ""

    @property
    def exact(self) -> bool:
        return self.state.kv is not None

    @property
    def num_bytes(self) -> int:
        """Return how much memory it takes."""
        return self.state.num_bytes + sum(len(data) for _, data in self.frames)

    def as_branch(self) -> Branch:
        """Return the branch to restart from when the session is not exact."""
        return self.session.run.branch(self.state, self.session.run.frame)

    def without_kv(self) -> SuspendedSession:
        """Return it as if copied while it ran: a hundredth of the bytes, but its player sees a new run begin."""
        return replace(self, state=self.state.without_kv(), frames=[])

    def to_stored(self, fingerprint: str) -> StoredSession:
        """Return it for the store. fingerprint: of the world that can restore it."""
        session, state, frames = self.session.to_data(), self.state, self.frames

        def data() -> bytes:
            content = {
                "format": FORMAT,
                "fingerprint": fingerprint,
                "session": session,
                "state": to_bytes(state),
                "frames": frames,
            }
            return bytes(msgpack.packb(content))

        generation, world = self.session.generation, self.session.world.name
        return StoredSession(self.ticket.key, self.ticket.secret, generation, world, data, self.address)


@dataclass(frozen=True, slots=True)
class ClaimedSession:
    """What claiming a session in the store has given: its `generation` there (None if the store could not be asked)
    and the session itself, or why it cannot be continued from the store."""

    generation: int | None
    suspended: SuspendedSession | None = None
    error: ServerError | None = None


def from_stored(
    stored: StoredSession, session: Session, owner: StateOwner, now: float, address: str = ""
) -> SuspendedSession:
    """Restore a stored session into the new `session`. Raise UnknownTicketError for one of another checkpoint, of
    another version of this program, or with anything in it that does not fit the world."""
    try:
        content: dict[str, Any] = msgpack.unpackb(stored.data())
        version = content.get("format", 1)
        if version == 1:
            content = format_1.upgrade(content)
        elif version not in (2, FORMAT):
            raise ValueError(f"format {str(version)[:20]}")
        if content["fingerprint"] != (owner.fingerprint if version == FORMAT else owner.former_fingerprint):
            raise UnknownTicketError(f"{stored.world} has changed since this session was stored; say hello without it")
        state = from_bytes(content["state"])
        owner.check(state)
        data = checked(content["session"], session.world)
        if owner.run_frame_of(state) != data.run.frame:
            raise ValueError(f"the state is of frame {owner.run_frame_of(state)}, the run at {data.run.frame}")
        session.restore(content["session"], now)
        frames = [(int(index), bytes(message)) for index, message in content["frames"]]
    except (AttributeError, KeyError, TypeError, ValueError, ShapeError, StateError, msgpack.UnpackException) as exc:
        logger.warning("stored session %s cannot be continued: %s: %s", stored.key, type(exc).__name__, exc)
        raise UnknownTicketError(
            "this server cannot read what was stored of this session; say hello without it"
        ) from exc
    session.generation = stored.generation - 1  # resuming counts the claim
    return SuspendedSession(session, Ticket(stored.key, stored.secret), state, frames, address)
