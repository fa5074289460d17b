"""From a client's `StartFrom` to the run request that the engine understands.

Owns the checks and the defaults. Files are decoded on a worker thread, which waits for pictures that another process
reads (`wire.clip_process`); one at a time in the whole process.
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
from server.wire.clip_process import read_clip
from server.wire.protocol import StartFrom, WorldInfo

_WORKER = ThreadPoolExecutor(1, thread_name_prefix="lightcone-files")

_T = TypeVar("_T")


async def run_in_worker_thread(work: Callable[[], _T]) -> _T:
    """Return the result of `work` without blocking the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_WORKER, work)


def check_start(start: StartFrom, config: ServerConfig) -> None:
    """Check what needs no decoding of a picture or file. Raises BadMessageError or ImageTooLargeError."""
    if sum(source is not None for source in (start.index, start.image, start.branch, start.state)) > 1:
        raise BadMessageError("start: give only one of index, image, branch and state")
    if start.seed is not None and (start.branch is not None or start.state is not None):
        raise BadMessageError("start: leave out the seed; a branch or state has its own")
    for kind, data in (("picture", start.image), ("saved session", start.state)):
        if data is not None and len(data) > (limit := config.max_image_bytes):
            raise ImageTooLargeError(f"the {kind} has {len(data)} bytes, the limit is {limit}; send a smaller one")


def carries_file(start: StartFrom) -> bool:
    """Return whether the start carries a picture or a file. These are decoded only once the session has a slot."""
    return start.image is not None or start.state is not None


async def start_request(
    start: StartFrom, seq: int | None, world: WorldInfo, engine: Engine, config: ServerConfig
) -> RunRequest:
    """Build the request for a start. Raises UnknownBranchError, BadImageError, ImageTooLargeError or BadStateError."""
    if start.branch is not None:
        return BranchRequest(branch=engine.branch(start.branch, world.name), control_seq=seq)
    runner = engine.world_registry.runner(world.name)
    if (file := start.state) is not None:
        branch = await run_in_worker_thread(lambda: from_file(world.name, runner, file))
        return BranchRequest(branch=branch, control_seq=seq)
    pictures = None
    if (image := start.image) is not None:
        bounds = {"max_bytes": config.max_image_bytes, "max_pixels": config.max_image_pixels}
        shape = (world.height, world.width)
        pictures = await run_in_worker_thread(
            lambda: read_clip(image, *shape, **bounds, max_frames=runner.context_frames)
        )
    seed = secrets.randbelow(2**31) if start.seed is None else start.seed
    return StartRequest(index=start.index or 0, pictures=pictures, seed=seed, control_seq=seq)
