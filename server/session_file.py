"""A session as a file that a player keeps. Owns its form, and what of a stranger's file is believed: nothing.

It holds what its cache can be made of again, not the cache: a hundredth of the bytes, good on any machine; frames that
follow are equal up to rounding. What led there is not in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack

from server.action_log import ActionLog
from server.branches import Branch, Origin
from server.errors import BadStateError
from server.worlds import WorldHost

if TYPE_CHECKING:
    from world import RolloutState

FORMAT = 1


def to_file(world: str, host: WorldHost, state: RolloutState) -> bytes:
    """The session in this state."""
    from world.saved import to_bytes  # here, since it loads torch

    light = to_bytes(replace(state, kv=None, codec={}))
    content = {"lightcone": FORMAT, "world": world, "fingerprint": host.fingerprint, "state": light}
    return bytes(msgpack.packb(content))


def from_file(world: str, host: WorldHost, data: bytes) -> Branch:
    """What to go on from. Raises BadStateError."""
    from world.errors import ShapeError, StateError  # here, since it loads torch
    from world.saved import from_bytes

    try:
        content = msgpack.unpackb(data)
        version, fingerprint, bytes_of_state = content["lightcone"], content["fingerprint"], content["state"]
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as exc:
        raise BadStateError(f"{len(data)} bytes are no saved session; send what `saved` brought") from exc
    if version != FORMAT:
        raise BadStateError(f"the saved session has format {str(version)[:20]}, this server reads {FORMAT}")
    if fingerprint != host.fingerprint:
        raise BadStateError(f"the session was saved in another world, or before {world} was trained anew")
    try:
        state = replace(from_bytes(bytes_of_state), kv=None)
        host.check(state)
    except (ShapeError, StateError, TypeError) as exc:
        raise BadStateError(f"the saved session is damaged: {exc}") from exc
    run_frame = host.run_frame_of(state)
    unknown = ActionLog(complete=False, num_chunks=run_frame // host.chunk_pixel_frames)
    return Branch(world=world, state=state, run_frame=run_frame, origin=Origin(None, state.seed), log=unknown)
