"""Waiting for a condition, with a deadline, for the tests of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.server.serving import RunningServer

POLL_S = 0.01


async def until(condition: Callable[[], bool], what: str, *, within_s: float = 20.0) -> None:
    """Wait until `condition()` is true. Fail the test after `within_s`; `what` is the condition in words."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


async def wait_for_sessions(server: RunningServer, num_playing: int, *, within_s: float = 20.0) -> None:
    """Wait until at most `num_playing` sessions have a slot."""
    await until(lambda: server.engine.num_sessions[0] <= num_playing, f"{num_playing} sessions", within_s=within_s)
