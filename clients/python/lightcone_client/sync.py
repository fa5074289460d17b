"""The same session without `await`. Owns an event loop on a thread of its own; everything else is `session`'s."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from lightcone_client.connecting import connect
from lightcone_client.messages import ActionLog, Forked, Frame, Receipt, Welcome, WorldInfo
from lightcone_client.session import Pacing, Session

_T = TypeVar("_T")


class _LoopThread:
    """An event loop that runs on a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lightcone-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run it there and wait for its result; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncSession:
    """Made by `play`. The methods are those of `session.Session`; each returns when it is done."""

    def __init__(self, session: Session, loop: _LoopThread) -> None:
        self._session = session
        self._loop = loop

    @property
    def welcome(self) -> Welcome:
        return self._session.welcome

    @property
    def world(self) -> WorldInfo:
        return self._session.world

    @property
    def last_receipt(self) -> Receipt | None:
        """What the server last said of a control (or an act, with `receipts`): `frame` is where it took effect."""
        return self._session.last_receipt

    def act(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> int:
        return self._loop.call(self._session.act(buttons, axes))

    def advance(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> list[Frame]:
        """Lock-step: one act in, its chunk of frames out."""
        return self._loop.call(self._session.advance(buttons, axes))

    def frame(self) -> Frame:
        """The next frame."""
        return self._loop.call(self._session.frame())

    def __iter__(self) -> Iterator[Frame]:
        while True:
            yield self.frame()

    def ack(self, frame: Frame) -> None:
        self._loop.call(self._session.ack(frame))

    def pause(self) -> None:
        self._loop.call(self._session.pause())

    def resume(self) -> None:
        """Go on after a pause."""
        self._loop.call(self._session.resume())

    def step(self, num_chunks: int = 1) -> None:
        """Pause, then make `num_chunks` chunks with the newest action."""
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
        """Start again from one of the world's starts, a picture or clip, a branch's ticket, or what `save` gave."""
        self._loop.call(self._session.start(index=index, image=image, branch=branch, state=state, seed=seed))

    def rewind(self, run_frame: int) -> None:
        """Go back to a frame of this run."""
        self._loop.call(self._session.rewind(run_frame))

    def fork(self, run_frame: int | None = None) -> Forked:
        """Branch at a frame of this run, now by default."""
        return self._loop.call(self._session.fork(run_frame))

    def save(self, run_frame: int | None = None) -> bytes:
        """The session at a frame of this run, now by default, as a file: see `start(state=…)`."""
        return self._loop.call(self._session.save(run_frame))

    def replay(self, log: ActionLog) -> Iterator[list[Frame]]:
        """What a log tells of, once more, chunk by chunk."""
        parts = self._session.replay(log)
        while (chunk := self._loop.call(anext(parts, None))) is not None:
            yield chunk

    def action_log(self) -> ActionLog:
        """The input of every chunk of this run so far."""
        return self._loop.call(self._session.action_log())

    def set_pacing(self, pacing: Pacing) -> None:
        self._loop.call(self._session.set_pacing(pacing))

    def set_speed(self, speed: float | None) -> None:
        self._loop.call(self._session.set_speed(speed))


@contextlib.contextmanager
def play(url: str, *, world: str, **options: Any) -> Iterator[SyncSession]:
    """A session open inside `with`; the options are those of `connecting.connect`."""
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
