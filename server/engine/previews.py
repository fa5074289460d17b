"""The worlds' moving previews: two seconds of each, generated when nobody who plays waits for it. Owns the pictures and
how far they are. All but `get` and `num_left` is called on the model thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engine.model_runner import ModelRunner
from server.sessions.input_buffer import Sample
from server.sessions.pacing import NEVER
from server.sessions.run import StartRequest
from server.wire.protocol import WorldInfo

logger = logging.getLogger(__name__)

PREVIEW_S, HOLD_S = 2.0, 0.4
RETRY_S = 60.0
"""How long after a failure a preview is begun again."""

TryDecode = Callable[[Callable[[], Any]], Future[Any] | None]
"""Have the decode thread do something as soon as it has nothing else to do; None if it is busy."""

BUSY_S = 0.005
"""How long to wait before a busy decode thread is asked again."""


class Previews:
    """The previews of some worlds. try_decode: its future is done on the decode thread, and wakes the model thread."""

    def __init__(self, worlds: dict[str, tuple[ModelRunner, WorldInfo]], try_decode: TryDecode) -> None:
        self._worlds, self._try_decode = worlds, try_decode
        self._finished: dict[str, list[NDArray[np.uint8]]] = {}
        self._left = list(worlds)
        self._parts: Iterator[None] | None = None
        self._decoding: Future[Any] | None = None
        self._next_at = -NEVER

    @property
    def num_left(self) -> int:
        """Return how many previews are not finished."""
        return len(self._left)

    def get(self, name: str) -> list[NDArray[np.uint8]] | None:
        """Return a world's preview, uint8 `h w 3` each; None until it is finished."""
        return self._finished.get(name)

    def due_at(self) -> float:
        """Return when there is something to do; NEVER while the decode thread has work for a preview."""
        is_waiting = self._decoding is not None and not self._decoding.done()
        return NEVER if is_waiting or not self._left else self._next_at

    def advance(self) -> None:
        """Do one more part, no longer than a step, if it is due. A preview that fails is begun again later."""
        if self.due_at() > time.monotonic():
            return
        name = self._left[0]
        runner, info = self._worlds[name]
        if self._parts is None:
            self._parts = self._make(name, runner, info)
        try:
            next(self._parts)
        except StopIteration:
            self._left.remove(name)
            self._parts = None
        except Exception:  # nobody plays in a preview; if the model is broken, a player's step will show it
            logger.exception("the preview of %s failed; it is begun again in %g s", name, RETRY_S)
            self._left.append(self._left.pop(0))
            self._parts, self._next_at = None, time.monotonic() + RETRY_S

    def _make(self, name: str, runner: ModelRunner, info: WorldInfo) -> Iterator[None]:
        rng, held, slot = np.random.default_rng(0), tuple[str, ...](), runner.preview_slot
        frames = [(yield from runner.begin(slot, _first_start(info)))]
        every = max(1, round(HOLD_S * info.fps / runner.chunk_pixel_frames))
        for chunk in range(round(PREVIEW_S * info.fps / runner.chunk_pixel_frames)):
            yield
            if chunk % every == 0 and info.buttons:
                held = (info.buttons[int(rng.integers(len(info.buttons)))].name,)
            stepped = runner.step([Sample(held)], [slot])
            pictures = yield from self._decoded(partial(runner.decode, stepped, [slot]))
            frames.extend(pictures[0])
        runner.release(slot)
        self._finished[name] = frames

    def _decoded(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns on the decode thread, which those who play come first at."""
        while (decoding := self._try_decode(work)) is None:
            self._next_at = time.monotonic() + BUSY_S
            yield
        self._decoding = decoding
        while not decoding.done():
            yield
        self._decoding = None
        return decoding.result()


def _first_start(info: WorldInfo) -> StartRequest:
    if info.starts:
        return StartRequest(index=0)
    return StartRequest(pictures=np.zeros((1, info.height, info.width, 3), np.uint8))
