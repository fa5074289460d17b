"""A session as a file that a player keeps. Owns the file's form, and checks everything in it: it comes from a stranger.

The file holds what the cache can be computed from, not the cache: a hundredth of the bytes, valid on any machine; the
frames that follow are equal up to rounding. The log of actions is not in it.
"""

from __future__ import annotations

from dataclasses import replace

import msgpack

from server.errors import BadStateError
from server.sessions.action_log import ActionLog
from server.sessions.branches import Branch, Origin
from server.state.state_owner import StateOwner
from world.errors import ShapeError, StateError
from world.rollout.snapshots import from_bytes, to_bytes
from world.rollout.timeline import RolloutState

FORMAT = 2
"""Format 1 has the fingerprint `StateOwner.former_fingerprint`."""


def to_file(world: str, owner: StateOwner, state: RolloutState) -> bytes:
    """Return the file of a session of `world` in this state."""
    content = {
        "lightcone": FORMAT,
        "world": world,
        "fingerprint": owner.fingerprint,
        "state": to_bytes(state.without_kv()),
    }
    return bytes(msgpack.packb(content))


def from_file(world: str, owner: StateOwner, data: bytes) -> Branch:
    """Return the branch of `world` that a file holds. Raise BadStateError."""
    try:
        content = msgpack.unpackb(data)
        version, fingerprint, state_bytes = content["lightcone"], content["fingerprint"], content["state"]
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as exc:
        raise BadStateError(f"{len(data)} bytes are not a saved session; send the file of a `saved` message") from exc
    if version not in (1, FORMAT):
        raise BadStateError(f"the saved session has format {str(version)[:20]}, this server reads {FORMAT}")
    if fingerprint != (owner.fingerprint if version == FORMAT else owner.former_fingerprint):
        raise BadStateError(f"the session was saved in another world, or before {world} was trained again")
    try:
        state = replace(from_bytes(state_bytes), kv=None)
        owner.check(state)
    except (ShapeError, StateError, TypeError) as exc:
        raise BadStateError(f"the saved session is damaged: {exc}") from exc
    run_frame = owner.run_frame_of(state)
    unknown = ActionLog(complete=False, num_chunks=run_frame // owner.chunk_pixel_frames)
    return Branch(world=world, state=state, run_frame=run_frame, origin=Origin(None, state.seed), log=unknown)
