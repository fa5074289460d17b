"""A session with a Lightcone server on an event loop. Owns acts, acks and what is waited for; knows no sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

from lightcone_client.errors import ConnectionLostError, LightconeClientError, ProtocolError, RefusedError
from lightcone_client.link import Link
from lightcone_client.messages import (
    ActionLog,
    Forked,
    Frame,
    GoAway,
    Receipt,
    Refusal,
    Saved,
    ServerMessage,
    Welcome,
    WorldInfo,
    pack,
)

Pacing = Literal["realtime", "lockstep"]


class Session:
    """Made by `connect`. Iterate it for frames; each is acknowledged as it is taken, unless `auto_ack` is off."""

    def __init__(self, link: Link, *, auto_ack: bool) -> None:
        """link: open, with a welcome."""
        self.last_receipt: Receipt | None = None
        self.go_away: GoAway | None = None
        self._link = link
        self._auto_ack = auto_ack
        self._seq = max(0, link.welcome.last_seq or 0)
        self._acts: deque[tuple[int, bytes]] = deque(maxlen=link.welcome.limits.max_pending_acts)  # perhaps not applied
        self._frames: asyncio.Queue[Frame | LightconeClientError] = asyncio.Queue()
        self._controls: dict[int, asyncio.Future[None]] = {}
        self._num_starting = 0
        self._newest: Frame | None = None
        self._answers: dict[int, Forked | Saved | ActionLog] = {}
        self._ended: LightconeClientError | None = None
        link.on_lost, link.on_resumed = self._refuse_controls, self._resumed
        link.opened()
        self._reader = asyncio.create_task(self._read())

    @property
    def welcome(self) -> Welcome:
        """As the server opened the session, or resumed it last; `generation` counts how often it has."""
        return self._link.welcome

    @property
    def world(self) -> WorldInfo:
        return self.welcome.world

    @property
    def seq(self) -> int:
        """The number of the newest act or control."""
        return self._seq

    async def act(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> int:
        """From now on these buttons are held; axes move by this much. Returns the act's number (see `applied_seq`)."""
        self._seq += 1
        seq = self._seq
        data = pack("act", seq=seq, buttons=list(buttons), axes=dict(axes or {}), t_client=_now_ms())
        self._acts.append((seq, data))  # sent again where it is lost with its connection
        await self._link.send_now(data)
        return seq

    async def advance(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> list[Frame]:
        """Lock-step: one act in, its chunk of frames out."""
        seq = await self.act(buttons, axes)
        chunk: list[Frame] = []
        while True:
            frame = await self.frame()
            if frame.applied_seq is None or frame.applied_seq < seq:
                continue
            chunk.append(frame)
            if frame.end_of_chunk:
                return chunk

    async def frame(self) -> Frame:
        """The next frame. Raises RefusedError for something refused meanwhile, ConnectionLostError at the end."""
        if self._ended is not None and self._frames.empty():
            raise self._ended
        item = await self._frames.get()
        if isinstance(item, LightconeClientError):
            raise item
        if self._auto_ack and item.end_of_chunk:
            with contextlib.suppress(LightconeClientError):  # the frame is here; the next call tells of the end
                await self.ack(item)
        return item

    async def __aiter__(self) -> AsyncIterator[Frame]:
        """Frames until the connection ends, which raises ConnectionLostError."""
        while True:
            yield await self.frame()

    async def ack(self, frame: Frame) -> None:
        """Everything up to this frame has been presented."""
        await self._link.send_now(pack("ack", frame=frame.index))

    async def pause(self) -> None:
        await self._control("pause")

    async def resume(self) -> None:
        """Go on after a pause."""
        await self._control("play")

    async def step(self, num_chunks: int = 1) -> None:
        """Pause, then make `num_chunks` chunks with the newest action."""
        await self._control("step", num_chunks=num_chunks)

    async def start(
        self,
        *,
        index: int | None = None,
        image: bytes | None = None,
        branch: str | None = None,
        state: bytes | None = None,
        seed: int | None = None,
    ) -> None:
        """Start again from one of the world's starts, from a picture or clip (PNG, JPEG, WebP or GIF), from a branch's
        ticket, or from what `save` gave.

        Frames not taken yet stay to be taken, but count as seen: the server waits for none of them.
        """
        start = {"index": index, "image": image, "branch": branch, "state": state, "seed": seed}
        await self._begin("start", start=start)

    async def rewind(self, run_frame: int) -> None:
        """Go back to a frame of this run, as `Frame.run_frame` counts them, at most `limits.timeline_frames` ago."""
        await self._begin("rewind", run_frame=run_frame)

    async def fork(self, run_frame: int | None = None) -> Forked:
        """Branch at a frame of this run, now by default; another session may `start(branch=ticket)` from it."""
        answer = self._answers.pop(await self._control("fork", run_frame=run_frame), None)
        if isinstance(answer, Forked):
            return answer
        raise ProtocolError("the server answered a fork without a ticket")

    async def save(self, run_frame: int | None = None) -> bytes:
        """The session at a frame of this run, now by default, as a file: see `start(state=…)`."""
        answer = self._answers.pop(await self._control("save", run_frame=run_frame), None)
        if isinstance(answer, Saved):
            return answer.file
        raise ProtocolError("the server answered a save without a file")

    async def replay(self, log: ActionLog) -> AsyncIterator[list[Frame]]:
        """What a log tells of, once more: from its start, in lock-step, chunk by chunk; the same frames. Raises
        ProtocolError for a log that is not complete, or of a run that began with a picture."""
        if log.start_index is None or not log.complete:
            raise ProtocolError("the log does not say all that has led there: it cannot be replayed")
        await self.set_pacing("lockstep")
        await self.start(index=log.start_index, seed=log.seed)
        for part in log.inputs:
            for _ in range(part.num_chunks):
                yield await self.advance(part.buttons, part.axes)

    async def action_log(self) -> ActionLog:
        """The input of every chunk of this run so far."""
        answer = self._answers.pop(await self._control("log"), None)
        if isinstance(answer, ActionLog):
            return answer
        raise ProtocolError("the server answered without a log")

    async def _begin(self, command: str, **values: Any) -> None:
        self._num_starting += 1
        try:
            if self._newest is not None:
                await self.ack(self._newest)
            await self._control(command, **values)
        finally:
            self._num_starting -= 1

    async def set_pacing(self, pacing: Pacing) -> None:
        await self._control("pacing", pacing=pacing)

    async def set_speed(self, speed: float | None) -> None:
        """Real time at `speed` times the world's rate; None: as fast as frames are taken."""
        await self._control("speed", speed=speed)

    async def close(self) -> None:
        """Leave, telling the server."""
        if self._ended is None:
            with contextlib.suppress(LightconeClientError):
                await self._link.send_now(pack("bye"))
            self._link.end(ConnectionLostError(None, "the session was closed"))
        await self._link.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    def cut(self) -> None:
        """Lose the connection without a word, as a bad network would: to see what comes of it."""
        self._link.cut()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _control(self, command: str, **values: Any) -> int:
        """Send a control and wait until the server has applied it; returns its number."""
        self._seq += 1
        seq = self._seq
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._controls[seq] = future
        try:
            await self._link.send(pack("control", command=command, seq=seq, **values), again=False)
            await future
        finally:
            self._controls.pop(seq, None)
        return seq

    async def _resumed(self, welcome: Welcome) -> None:
        """Send again what the server has not got, and what was wanted meanwhile."""
        newest = welcome.last_seq or 0
        while lacking := [act for act in self._acts if act[0] > newest]:
            newest, data = lacking[0]
            await self._link.send_first(data)

    def _refuse_controls(self, lost: ConnectionLostError) -> None:
        """Whether they were carried out, nobody knows."""
        for seq in list(self._controls):
            self._answer(seq, lost)

    async def _read(self) -> None:
        """Sort what arrives until the connection ends."""
        try:
            while True:
                message = await self._link.receive()
                self._sort(message)
                if self._num_starting and isinstance(message, Frame) and message.end_of_chunk:
                    await self.ack(message)  # a start waits until the picture of the one before is acknowledged
        except LightconeClientError as error:
            self._end(error)
        except Exception as exc:  # noqa: BLE001  # whatever it is, nobody may wait for ever for what is read no more
            self._end(ProtocolError(f"reading what the server sends failed: {exc!r}"))

    def _end(self, error: LightconeClientError) -> None:
        self._ended = self._ended or error
        self._link.end(self._ended)
        self._frames.put_nowait(self._ended)
        for seq in list(self._controls):
            self._answer(seq, self._ended)

    def _answer(self, seq: int | None, error: LightconeClientError | None = None) -> bool:
        """Let the control `seq` return, or raise; False if none of that number is waited for."""
        future = None if seq is None else self._controls.get(seq)
        if future is None or future.done():
            return False
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        return True

    def _sort(self, message: ServerMessage | None) -> None:
        match message:
            case Frame() as frame:
                self._newest, self._link.last_frame = frame, frame.index
                while self._acts and frame.applied_seq is not None and self._acts[0][0] <= frame.applied_seq:
                    self._acts.popleft()
                self._frames.put_nowait(frame)
            case Receipt() as receipt:
                self.last_receipt = receipt
                if receipt.about == "control":
                    self._answer(receipt.seq)
            case Forked() | Saved() | ActionLog() as answer if answer.seq in self._controls:
                self._answers[answer.seq] = answer
            case GoAway() as go_away:
                self.go_away = go_away
            case Refusal() as refusal:
                self._refusal(refusal)

    def _refusal(self, refusal: Refusal) -> None:
        if refusal.fatal:
            self._link.refusal = _refused(refusal)
        elif refusal.about == "act" or not self._answer(refusal.seq, _refused(refusal)):
            self._frames.put_nowait(_refused(refusal))


def _refused(refusal: Refusal) -> RefusedError:
    return RefusedError(refusal.code, refusal.message, fatal=refusal.fatal, seq=refusal.seq)


def _now_ms() -> float:
    return time.perf_counter() * 1e3
