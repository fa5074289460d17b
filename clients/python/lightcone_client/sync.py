"""Sessions without `await`. Owns the thread that runs the event loop; `session` does everything else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from lightcone_client.client import connect
from lightcone_client.messages import ActionLog, Forked, Frame, Receipt, Welcome, WorldInfo
from lightcone_client.session import Pacing, Session

_T = TypeVar("_T")


class _LoopThread:
    """An event loop running on a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lightcone-client", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop and return its result; an interrupt of the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Stop the loop and join its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncSession:
    """A session opened by `play`, with the methods of `session.Session`; each call blocks until it is done."""

    def __init__(self, session: Session, loop: _LoopThread) -> None:
        self._session = session
        self._loop = loop

    @property
    def welcome(self) -> Welcome:
        """The newest welcome; its `generation` counts the resumes."""
        return self._session.welcome

    @property
    def world(self) -> WorldInfo:
        """The world that is played."""
        return self._session.world

    @property
    def last_receipt(self) -> Receipt | None:
        """The newest receipt for a control (or, with `receipts`, an act); `frame` is where it took effect."""
        return self._session.last_receipt

    def act(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> int:
        """Hold these buttons from now on and move the axes by these amounts; returns the act's sequence number."""
        return self._loop.call(self._session.act(buttons, axes))

    def advance(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> list[Frame]:
        """Send one act in lock-step and return the frames of its chunk."""
        return self._loop.call(self._session.advance(buttons, axes))

    def frame(self) -> Frame:
        """Return the next frame."""
        return self._loop.call(self._session.frame())

    def __iter__(self) -> Iterator[Frame]:
        while True:
            yield self.frame()

    def ack(self, frame: Frame) -> None:
        """Tell the server that everything up to this frame has been presented."""
        self._loop.call(self._session.ack(frame))

    def pause(self) -> None:
        """Stop the world until `resume` or `step`."""
        self._loop.call(self._session.pause())

    def resume(self) -> None:
        """Continue after a pause."""
        self._loop.call(self._session.resume())

    def step(self, num_chunks: int = 1) -> None:
        """Pause, then generate `num_chunks` chunks with the newest action."""
        self._loop.call(self._session.step(num_chunks))

    def start(
        self,
        *,
        index: int | None = None,
        image: bytes | None = None,
        branch: str | None = None,
        state: bytes | None = None,
        seed: int | None = None,
    ) -> None:
        """Start a new run from a start of the world, a picture or clip, a fork's ticket, or the result of `save`."""
        self._loop.call(self._session.start(index=index, image=image, branch=branch, state=state, seed=seed))

    def rewind(self, run_frame: int) -> None:
        """Go back to a frame of this run."""
        self._loop.call(self._session.rewind(run_frame))

    def fork(self, run_frame: int | None = None) -> Forked:
        """Branch at a frame of this run, by default the current one."""
        return self._loop.call(self._session.fork(run_frame))

    def save(self, run_frame: int | None = None) -> bytes:
        """Return the session at a frame of this run, by default the current one, as a file for `start(state=…)`."""
        return self._loop.call(self._session.save(run_frame))

    def replay(self, log: ActionLog) -> Iterator[list[Frame]]:
        """Play the run of a log again and yield the frames of each chunk."""
        chunks = self._session.replay(log)
        while (chunk := self._loop.call(anext(chunks, None))) is not None:
            yield chunk

    def action_log(self) -> ActionLog:
        """Return the input of every chunk of this run so far."""
        return self._loop.call(self._session.action_log())

    def set_pacing(self, pacing: Pacing) -> None:
        """Switch between real time and lock-step."""
        self._loop.call(self._session.set_pacing(pacing))

    def set_speed(self, speed: float | None) -> None:
        """Play in real time at `speed` times the world's rate; None means as fast as frames are taken."""
        self._loop.call(self._session.set_speed(speed))


@contextlib.contextmanager
def play(url: str, *, world: str, **options: Any) -> Iterator[SyncSession]:
    """Open a session inside `with`; the options are those of `client.connect`."""
    loop = _LoopThread()
    try:
        opened: AbstractAsyncContextManager[Session] = connect(url, world=world, **options)
        session = loop.call(_enter(opened))
        try:
            yield SyncSession(session, loop)
        finally:
            loop.call(_leave(opened))
    finally:
        loop.stop()


async def _enter(opened: AbstractAsyncContextManager[Session]) -> Session:
    return await opened.__aenter__()


async def _leave(opened: AbstractAsyncContextManager[Session]) -> None:
    await opened.__aexit__(None, None, None)
