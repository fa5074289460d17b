"""A session with a Lightcone server on an event loop. Owns the socket, acknowledgements and what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed

from lightcone_client.errors import (
    ConnectionLostError,
    LightconeClientError,
    ProtocolError,
    RefusedError,
)
from lightcone_client.messages import (
    ActionLog,
    Forked,
    Frame,
    GoAway,
    Queued,
    Receipt,
    Refusal,
    ServerMessage,
    Welcome,
    WorldInfo,
    pack,
    unpack,
)

Pacing = Literal["realtime", "lockstep"]


class Session:
    """Made by `connect`. Iterate it for frames; each is acknowledged as it is taken, unless `auto_ack` is off."""

    def __init__(self, socket: websockets.asyncio.client.ClientConnection, *, auto_ack: bool) -> None:
        self.welcome: Welcome
        self.last_receipt: Receipt | None = None
        self.go_away: GoAway | None = None
        self._socket = socket
        self._auto_ack = auto_ack
        self._seq = 0
        self._frames: asyncio.Queue[Frame | LightconeClientError] = asyncio.Queue()
        self._controls: dict[int, asyncio.Future[None]] = {}
        self._num_starting = 0
        self._newest: Frame | None = None
        self._answers: dict[int, Forked | ActionLog] = {}
        self._ended: LightconeClientError | None = None
        self._reader: asyncio.Task[None] | None = None

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
        await self._send("act", seq=self._seq, buttons=list(buttons), axes=dict(axes or {}), t_client=_now_ms())
        return self._seq

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
        await self._send("ack", frame=frame.index)

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
        seed: int | None = None,
    ) -> None:
        """Start again from one of the world's starts, from a picture (PNG, JPEG or WebP), or from a branch's ticket.

        Frames not taken yet stay to be taken, but count as seen: the server waits for none of them.
        """
        await self._begin("start", start={"index": index, "image": image, "branch": branch, "seed": seed})

    async def rewind(self, run_frame: int) -> None:
        """Go back to a frame of this run, as `Frame.run_frame` counts them, at most `limits.timeline_frames` ago."""
        await self._begin("rewind", run_frame=run_frame)

    async def fork(self, run_frame: int | None = None) -> Forked:
        """Branch at a frame of this run, now by default; another session may `start(branch=ticket)` from it."""
        answer = self._answers.pop(await self._control("fork", run_frame=run_frame), None)
        if isinstance(answer, Forked):
            return answer
        raise ProtocolError("the server answered a fork without a ticket")

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
                await self._send("bye")
        await self._socket.close()
        if self._reader is not None:
            await self._reader

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, hello: bytes, on_queued: Callable[[Queued], None] | None) -> None:
        """Say hello and wait for the welcome, through the queue if need be. Called by `connect`."""
        await self._transmit(hello)
        while True:
            message = unpack(await self._receive())
            if isinstance(message, Welcome):
                self.welcome = message
                self._reader = asyncio.create_task(self._read())
                return
            if isinstance(message, Queued) and on_queued is not None:
                on_queued(message)
            if isinstance(message, Refusal):
                raise _refused(message)

    async def _control(self, command: str, **values: Any) -> int:
        """Send a control and wait until the server has applied it; returns its number."""
        self._seq += 1
        seq = self._seq
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._controls[seq] = future
        try:
            await self._send("control", command=command, seq=seq, **values)
            await future
        finally:
            self._controls.pop(seq, None)
        return seq

    async def _send(self, kind: str, **values: Any) -> None:
        await self._transmit(pack(kind, **values))

    async def _transmit(self, data: bytes) -> None:
        if self._ended is not None:
            raise self._ended
        try:
            await self._socket.send(data)
        except ConnectionClosed as exc:
            raise self._ended or _lost(exc) from exc

    async def _receive(self) -> bytes:
        try:
            data = await self._socket.recv()
        except ConnectionClosed as exc:
            raise _lost(exc) from exc
        if isinstance(data, str):
            raise ProtocolError("the server sent a text message")
        return data

    async def _read(self) -> None:
        """Sort what arrives until the connection ends."""
        try:
            while True:
                message = unpack(await self._receive())
                self._sort(message)
                if self._num_starting and isinstance(message, Frame) and message.end_of_chunk:
                    await self.ack(message)  # a start waits until the picture of the one before is acknowledged
        except LightconeClientError as error:
            self._end(error)
        except Exception as exc:  # noqa: BLE001  # whatever it is, nobody may wait for ever for what is read no more
            self._end(ProtocolError(f"reading what the server sends failed: {exc!r}"))

    def _end(self, error: LightconeClientError) -> None:
        self._ended = self._ended or error
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
                self._newest = frame
                self._frames.put_nowait(frame)
            case Receipt() as receipt:
                self.last_receipt = receipt
                if receipt.about == "control":
                    self._answer(receipt.seq)
            case Forked() | ActionLog() as answer if answer.seq in self._controls:
                self._answers[answer.seq] = answer
            case GoAway() as go_away:
                self.go_away = go_away
            case Refusal() as refusal:
                self._refusal(refusal)

    def _refusal(self, refusal: Refusal) -> None:
        if refusal.fatal:
            self._ended = _refused(refusal)
        elif refusal.about == "act" or not self._answer(refusal.seq, _refused(refusal)):
            self._frames.put_nowait(_refused(refusal))


def _refused(refusal: Refusal) -> RefusedError:
    return RefusedError(refusal.code, refusal.message, fatal=refusal.fatal, seq=refusal.seq)


def _lost(exc: ConnectionClosed) -> ConnectionLostError:
    return ConnectionLostError(exc.rcvd.code if exc.rcvd else None, exc.rcvd.reason if exc.rcvd else str(exc))


def _now_ms() -> float:
    return time.perf_counter() * 1e3
