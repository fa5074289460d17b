"""A session with a Lightcone server, for asyncio. Owns acts, acks and pending controls; knows no sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any, Literal, TypeVar

from lightcone_client.actions import checked_action
from lightcone_client.connection import Connection, refused_error
from lightcone_client.errors import ConnectionLostError, LightconeClientError, ProtocolError
from lightcone_client.frame_queue import FrameQueue
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

_Reply = TypeVar("_Reply", Forked, Saved, ActionLog)


class Session:
    """A session opened by `connect`. Iterate over it to receive frames; each is acknowledged as it is taken, unless
    `auto_ack` is off."""

    def __init__(self, connection: Connection, *, auto_ack: bool) -> None:
        """Start reading from `connection`, which must be open and welcomed."""
        self.last_receipt: Receipt | None = None
        self.go_away: GoAway | None = None
        self._connection = connection
        self._auto_ack = auto_ack
        self._seq = max(0, connection.welcome.last_seq or 0)
        max_acts = connection.welcome.limits.max_pending_acts
        self._unapplied_acts: deque[tuple[int, bytes]] = deque(maxlen=max_acts)
        self._frames = FrameQueue()
        self._controls: dict[int, asyncio.Future[Receipt]] = {}
        self._num_pending_starts = 0
        self._newest: Frame | None = None
        self._replies: dict[int, Forked | Saved | ActionLog] = {}
        self._ended: LightconeClientError | None = None
        connection.on_lost, connection.on_resumed = self._fail_controls, self._resumed
        connection.allow_sending()
        self._reader = asyncio.create_task(self._read())

    @property
    def welcome(self) -> Welcome:
        """The newest welcome: of the opening, or of the last resume; its `generation` counts the resumes."""
        return self._connection.welcome

    @property
    def world(self) -> WorldInfo:
        """The world that is played."""
        return self.welcome.world

    @property
    def seq(self) -> int:
        """The sequence number of the newest act or control."""
        return self._seq

    async def act(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> int:
        """Hold these buttons from now on and move the axes by these amounts. Returns the act's sequence number, to be
        compared with `Frame.applied_seq`. Raises ActionError for what the world does not have."""
        self._connection.check_owner()
        held, moved = checked_action(self.world, buttons, axes)
        self._seq += 1
        seq = self._seq
        data = pack("act", seq=seq, buttons=held, axes=moved, t_client=1e3 * time.perf_counter())
        self._unapplied_acts.append((seq, data))  # for sending again after a reconnect
        await self._connection.send_if_open(data)
        return seq

    async def advance(self, buttons: Iterable[str] = (), axes: Mapping[str, float] | None = None) -> list[Frame]:
        """Send one act in lock-step and return the frames of its chunk; calls from several tasks take turns."""
        self._connection.check_owner()
        async with self._frames.turn():
            seq = await self.act(buttons, axes)
            chunk: list[Frame] = []
            while not chunk or not chunk[-1].end_of_chunk:
                frame = await self._acknowledged(self._frames.take_in_turn())
                if frame.applied_seq is not None and frame.applied_seq >= seq:
                    chunk.append(frame)
            return chunk

    async def frame(self) -> Frame:
        """Return the next frame. Raises RefusedError for an act that the server refused since the last call, and
        ConnectionLostError once the connection has ended."""
        self._connection.check_owner()
        return await self._acknowledged(self._frames.take())

    async def _acknowledged(self, taking: Awaitable[Frame]) -> Frame:
        frame = await taking
        if self._auto_ack and frame.end_of_chunk:
            with contextlib.suppress(LightconeClientError):  # return the frame; the next call raises the error
                await self.ack(frame)
        return frame

    async def __aiter__(self) -> AsyncIterator[Frame]:
        """Yield frames; raises ConnectionLostError when the connection ends."""
        while True:
            yield await self.frame()

    async def ack(self, frame: Frame) -> None:
        """Tell the server that everything up to this frame has been presented."""
        await self._connection.send_if_open(pack("ack", frame=frame.index))

    async def pause(self) -> None:
        """Stop the world until `resume` or `step`."""
        await self._control("pause")

    async def resume(self) -> None:
        """Continue after a pause."""
        await self._control("play")

    async def step(self, num_chunks: int = 1) -> None:
        """Pause, then generate `num_chunks` chunks with the newest action."""
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
        """Start a new run from one of the world's starts, from a picture or clip (PNG, JPEG, WebP or GIF), from the
        ticket of a fork, or from the result of `save`.

        The next frame is the new run's first picture; frames of the old run that were not taken yet are dropped.
        """
        start = {"index": index, "image": image, "branch": branch, "state": state, "seed": seed}
        await self._start_run("start", start=start)

    async def rewind(self, run_frame: int) -> None:
        """Go back to a frame of this run (its `Frame.run_frame`), at most `limits.timeline_frames` ago."""
        await self._start_run("rewind", run_frame=run_frame)

    async def fork(self, run_frame: int | None = None) -> Forked:
        """Branch at a frame of this run, by default the current one; any session can then `start(branch=ticket)`."""
        return await self._request("fork", Forked, run_frame=run_frame)

    async def save(self, run_frame: int | None = None) -> bytes:
        """Return the session at a frame of this run, by default the current one, as a file for `start(state=…)`."""
        return (await self._request("save", Saved, run_frame=run_frame)).file

    async def replay(self, log: ActionLog) -> AsyncIterator[list[Frame]]:
        """Play the run of a log again from its start, in lock-step, and yield the frames of each chunk; they are the
        same as before. Raises ProtocolError if the log is not complete, or if its run started from a picture."""
        if log.start_index is None or not log.complete:
            raise ProtocolError("the log is incomplete, or its run started from a picture: it cannot be replayed")
        await self.set_pacing("lockstep")
        await self.start(index=log.start_index, seed=log.seed)
        for part in log.inputs:
            for _ in range(part.num_chunks):
                yield await self.advance(part.buttons, part.axes)

    async def action_log(self) -> ActionLog:
        """Return the input of every chunk of this run so far."""
        return await self._request("log", ActionLog)

    async def _start_run(self, command: str, **values: Any) -> None:
        self._num_pending_starts += 1
        try:
            if self._newest is not None:
                await self.ack(self._newest)
            receipt = await self._control(command, **values)
            self._frames.drop_before(receipt.frame or 0)
        finally:
            self._num_pending_starts -= 1

    async def set_pacing(self, pacing: Pacing) -> None:
        """Switch between real time and lock-step."""
        await self._control("pacing", pacing=pacing)

    async def set_speed(self, speed: float | None) -> None:
        """Play in real time at `speed` times the world's rate; None means as fast as frames are taken."""
        await self._control("speed", speed=speed)

    async def close(self) -> None:
        """End the session and close the connection; whoever waits for it gets a ConnectionLostError. Does nothing in a
        forked process: the session is the other one's."""
        if self._connection.is_inherited:
            return
        if self._ended is None:
            with contextlib.suppress(LightconeClientError):
                await self._connection.send_if_open(pack("bye"))
            self._end(ConnectionLostError(None, "the session was closed"))
        await self._connection.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    def cut(self) -> None:
        """Drop the connection without a closing handshake, as a bad network would; for tests."""
        self._connection.abort()

    async def _control(self, command: str, **values: Any) -> Receipt:
        """Send a control, wait until the server has applied it, and return its receipt."""
        self._seq += 1
        seq = self._seq
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._controls[seq] = future
        try:
            await self._connection.send(pack("control", command=command, seq=seq, **values), retry=False)
            return await future
        finally:
            self._controls.pop(seq, None)

    async def _request(self, command: str, kind: type[_Reply], **values: Any) -> _Reply:
        """Send a control and return the message with its result."""
        reply = self._replies.pop((await self._control(command, **values)).seq, None)
        if isinstance(reply, kind):
            return reply
        raise ProtocolError(f"the server applied {command!r} without sending its result")

    async def _resumed(self, welcome: Welcome) -> None:
        """Send the acts that the server has not received, including those made during the reconnect."""
        newest = welcome.last_seq or 0
        while missing := [act for act in self._unapplied_acts if act[0] > newest]:
            newest, data = missing[0]
            await self._connection.send_while_resuming(data)

    def _fail_controls(self, lost: ConnectionLostError) -> None:
        """Fail the pending controls: it is unknown whether the server applied them."""
        for seq in list(self._controls):
            self._settle(seq, lost)

    async def _read(self) -> None:
        """Handle incoming messages until the connection ends."""
        try:
            while True:
                message = await self._connection.receive()
                self._handle(message)
                if self._num_pending_starts and isinstance(message, Frame) and message.end_of_chunk:
                    await self.ack(message)  # the server delays a start until the previous run's frame is acknowledged
        except LightconeClientError as error:
            self._end(error)
        except Exception as exc:  # noqa: BLE001  # whatever failed, callers must not wait for ever
            self._end(ProtocolError(f"reading from the server failed: {exc!r}"))

    def _end(self, error: LightconeClientError) -> None:
        self._ended = self._ended or error
        self._connection.end(self._ended)
        self._frames.end(self._ended)
        for seq in list(self._controls):
            self._settle(seq, self._ended)

    def _settle(self, seq: int | None, result: Receipt | LightconeClientError) -> bool:
        """Let the pending control `seq` return or raise `result`. Returns False if there is no such control."""
        future = None if seq is None else self._controls.get(seq)
        if future is None or future.done():
            return False
        if isinstance(result, Receipt):
            future.set_result(result)
        else:
            future.set_exception(result)
        return True

    def _handle(self, message: ServerMessage | None) -> None:
        match message:
            case Frame() as frame:
                self._newest, self._connection.last_frame = frame, frame.index
                applied = -1 if frame.applied_seq is None else frame.applied_seq
                while self._unapplied_acts and self._unapplied_acts[0][0] <= applied:
                    self._unapplied_acts.popleft()
                self._frames.put(frame)
            case Receipt() as receipt:
                self.last_receipt = receipt
                if receipt.about == "control":
                    self._settle(receipt.seq, receipt)
            case Forked() | Saved() | ActionLog() as reply if reply.seq in self._controls:
                self._replies[reply.seq] = reply
            case GoAway() as go_away:
                self.go_away = go_away
            case Refusal() as refusal:
                self._handle_refusal(refusal)

    def _handle_refusal(self, refusal: Refusal) -> None:
        if refusal.fatal:
            self._connection.refusal = refused_error(refusal)
        elif refusal.about == "act" or not self._settle(refusal.seq, refused_error(refusal)):
            self._frames.put(refused_error(refusal))
