"""Frames that have arrived and that nobody has taken yet. Owns their order, and who may take them; knows no sockets.

Several tasks or threads may take frames. A call of `advance` takes its chunk's frames alone: others wait for their
turn, or learn at once that they cannot have one, so that nobody waits for a frame that somebody else has taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lightcone_client.errors import LightconeClientError, UsageError
from lightcone_client.messages import Frame


class FrameQueue:
    """Frames, and errors to be raised in their place, in the order of their arrival."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Frame | LightconeClientError] = asyncio.Queue()
        self._turn = asyncio.Lock()
        self._num_waiting = 0
        self._first = 0
        self._ended: LightconeClientError | None = None

    def __len__(self) -> int:
        return self._items.qsize()

    def put(self, item: Frame | LightconeClientError) -> None:
        """Add a frame, unless it is of a run that is over, or an error that the next call raises."""
        if not isinstance(item, Frame) or item.index >= self._first:
            self._items.put_nowait(item)

    def drop_before(self, index: int) -> None:
        """Drop the frames before `index`, also those that are yet to arrive: a new run begins there."""
        self._first = max(self._first, index)
        kept = [self._items.get_nowait() for _ in range(self._items.qsize())]
        for item in kept:
            self.put(item)

    def end(self, error: LightconeClientError) -> None:
        """Let every call raise `error` once the frames before it are taken."""
        if self._ended is None:
            self._ended = error
            self._items.put_nowait(error)

    async def take(self) -> Frame:
        """Return the next frame, after any `turn` under way. Raises the errors that were put here."""
        while self._turn.locked():
            async with self._turn:
                pass
        return await self._next()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let nobody else take frames; inside, use `take_in_turn`. Raises UsageError while another call waits for a
        frame: it would take one that is meant for this turn."""
        async with self._turn:
            if self._num_waiting:
                raise UsageError(
                    "another thread or task waits for a frame of this session: advance and frame cannot share it, "
                    "open a session for each"
                )
            yield

    async def take_in_turn(self) -> Frame:
        """Return the next frame; for whoever has the turn."""
        return await self._next()

    async def _next(self) -> Frame:
        self._num_waiting += 1
        try:
            item = await self._items.get()
        finally:
            self._num_waiting -= 1
        if item is self._ended:
            self._items.put_nowait(item)  # for all who wait as well, and for later calls
        if isinstance(item, LightconeClientError):
            raise item
        return item
