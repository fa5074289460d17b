"""What a client may start from, as the engine needs it. Owns the checks and the defaults; reads no pictures itself."""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from server.config import ServerConfig
from server.engine import Engine
from server.errors import BadMessageError, ImageTooLargeError
from server.protocol import StartFrom, WorldInfo
from server.runs import BranchRequest, RunRequest, StartRequest


def check_start(start: StartFrom, config: ServerConfig) -> None:
    """What can be said of a start without reading its picture. Raises BadMessageError or ImageTooLargeError."""
    if sum(given is not None for given in (start.index, start.image, start.branch)) > 1:
        raise BadMessageError("start: give one of an index, an image and a branch")
    if start.branch is not None and start.seed is not None:
        raise BadMessageError("start: a branch has a seed already; give it none")
    if start.image is not None and len(start.image) > (limit := config.max_image_bytes):
        raise ImageTooLargeError(f"the picture has {len(start.image)} bytes, the limit is {limit}; send it smaller")


def start_request(
    start: StartFrom, seq: int | None, world: WorldInfo, engine: Engine, picture: NDArray[np.uint8] | None = None
) -> RunRequest:
    """picture: what `start.image` shows. Raises UnknownBranchError."""
    if start.branch is not None:
        return BranchRequest(branch=engine.branch(start.branch, world.name), control_seq=seq)
    seed = secrets.randbelow(2**31) if start.seed is None else start.seed
    return StartRequest(index=start.index or 0, picture=picture, seed=seed, control_seq=seq)
