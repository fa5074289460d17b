"""Sessions without `await`. `loop_thread` owns the thread that runs the event loop; `session` does everything else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from lightcone_client.client import connect
from lightcone_client.loop_thread import LoopThread
from lightcone_client.messages import ActionLog, Forked, Frame, Receipt, Welcome, WorldInfo
from lightcone_client.session import Pacing, Session


class SyncSession:
    """A session opened by `play`, with the methods of `session.Session`; each call blocks until it is done.

    Several threads may share it: calls of `advance` take turns. In a forked process, and after `with`, every call
    raises an error at once.
    """

    def __init__(self, session: Session, loop: LoopThread) -> None:
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
    loop = LoopThread()
    try:
        opened: AbstractAsyncContextManager[Session] = connect(url, world=world, **options)
        session = loop.call(_enter(opened))
        try:
            yield SyncSession(session, loop)
        finally:
            if not loop.is_inherited:
                loop.call(_leave(opened))
    finally:
        loop.stop()


async def _enter(opened: AbstractAsyncContextManager[Session]) -> Session:
    return await opened.__aenter__()


async def _leave(opened: AbstractAsyncContextManager[Session]) -> None:
    await opened.__aexit__(None, None, None)
