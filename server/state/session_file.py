"""A session as a file that a player keeps. Owns its form, and what of a stranger's file is believed: nothing.

It holds what its cache can be made of again, not the cache: a hundredth of the bytes, good on any machine; frames that
follow are equal up to rounding. What led there is not in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack

from server.engine.model_runner import ModelRunner
from server.errors import BadStateError
from server.sessions.action_log import ActionLog
from server.sessions.branches import Branch, Origin

if TYPE_CHECKING:
    from world import RolloutState

FORMAT = 1


def to_file(world: str, runner: ModelRunner, state: RolloutState) -> bytes:
    """The session in this state."""
    from world.rollout.snapshots import to_bytes  # here, since it loads torch

    light = to_bytes(replace(state, kv=None, codec={}))
    content = {"lightcone": FORMAT, "world": world, "fingerprint": runner.fingerprint, "state": light}
    return bytes(msgpack.packb(content))


def from_file(world: str, runner: ModelRunner, data: bytes) -> Branch:
    """What to go on from. Raises BadStateError."""
    from world.errors import ShapeError, StateError  # here, since it loads torch
    from world.rollout.snapshots import from_bytes

    try:
        content = msgpack.unpackb(data)
        version, fingerprint, bytes_of_state = content["lightcone"], content["fingerprint"], content["state"]
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as exc:
        raise BadStateError(f"{len(data)} bytes are no saved session; send what `saved` brought") from exc
    if version != FORMAT:
        raise BadStateError(f"the saved session has format {str(version)[:20]}, this server reads {FORMAT}")
    if fingerprint != runner.fingerprint:
        raise BadStateError(f"the session was saved in another world, or before {world} was trained anew")
    try:
        state = replace(from_bytes(bytes_of_state), kv=None)
        runner.check(state)
    except (ShapeError, StateError, TypeError) as exc:
        raise BadStateError(f"the saved session is damaged: {exc}") from exc
    run_frame = runner.run_frame_of(state)
    unknown = ActionLog(complete=False, num_chunks=run_frame // runner.chunk_pixel_frames)
    return Branch(world=world, state=state, run_frame=run_frame, origin=Origin(None, state.seed), log=unknown)
