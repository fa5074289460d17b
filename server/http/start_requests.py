"""What a client may start from, as the engine needs it. Owns the checks and the defaults, and reads pictures and files
on a thread of its own: one at a time in the whole process.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.config import ServerConfig
from server.engine.engine import Engine
from server.errors import BadMessageError, ImageTooLargeError
from server.sessions.run import BranchRequest, RunRequest, StartRequest
from server.state.session_file import from_file
from server.wire.frames import read_clip
from server.wire.protocol import StartFrom, WorldInfo

_WORKER = ThreadPoolExecutor(1, thread_name_prefix="lightcone-aside")

_T = TypeVar("_T")


async def in_worker_thread(work: Callable[[], _T]) -> _T:
    """Its result; everybody's connection goes on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_WORKER, work)


def check_start(start: StartFrom, config: ServerConfig) -> None:
    """What can be said of a start without reading what it brings. Raises BadMessageError or ImageTooLargeError."""
    if sum(given is not None for given in (start.index, start.image, start.branch, start.state)) > 1:
        raise BadMessageError("start: give one of an index, an image, a branch and a state")
    if start.seed is not None and (start.branch is not None or start.state is not None):
        raise BadMessageError("start: a branch or state has a seed already; give it none")
    for what, data in (("picture", start.image), ("saved session", start.state)):
        if data is not None and len(data) > (limit := config.max_image_bytes):
            raise ImageTooLargeError(f"the {what} has {len(data)} bytes, the limit is {limit}; send it smaller")


def has_to_be_read(start: StartFrom) -> bool:
    """Whether it brings something; that is not looked at before there is a slot."""
    return start.image is not None or start.state is not None


async def start_request(
    start: StartFrom, seq: int | None, world: WorldInfo, engine: Engine, config: ServerConfig
) -> RunRequest:
    """Raises UnknownBranchError, BadImageError, ImageTooLargeError or BadStateError."""
    if start.branch is not None:
        return BranchRequest(branch=engine.branch(start.branch, world.name), control_seq=seq)
    runner = engine.world_registry.runner(world.name)
    if (file := start.state) is not None:
        return BranchRequest(
            branch=await in_worker_thread(lambda: from_file(world.name, runner, file)), control_seq=seq
        )
    pictures = None
    if (image := start.image) is not None:
        bounds = {"max_bytes": config.max_image_bytes, "max_pixels": config.max_image_pixels}
        shape = (world.height, world.width)
        pictures = await in_worker_thread(lambda: read_clip(image, *shape, **bounds, max_frames=runner.context_frames))
    seed = secrets.randbelow(2**31) if start.seed is None else start.seed
    return StartRequest(index=start.index or 0, pictures=pictures, seed=seed, control_seq=seq)
