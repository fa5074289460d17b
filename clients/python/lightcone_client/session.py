"""A session with a Lightcone server on an event loop. Owns the socket, acknowledgements and what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from lightcone_client.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    LightconeClientError,
    ProtocolError,
    RefusedError,
)
from lightcone_client.messages import (
    PROTOCOL_VERSION,
    Frame,
    GoAway,
    Queued,
    Receipt,
    Refusal,
    Welcome,
    WorldInfo,
    pack,
    unpack,
)

Pacing = Literal["realtime", "lockstep"]
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def stream_url(url: str) -> str:
    """The stream's address from a server's: `http://host:8000` becomes `ws://host:8000/v1/stream`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path if parts.path not in ("", "/") else "/v1/stream", "", ""))


class Session:
    """Made by `connect`. Iterate it for frames; each is acknowledged as it is taken (unless `auto_ack` is off)."""

    def __init__(self, socket: websockets.asyncio.client.ClientConnection, *, auto_ack: bool) -> None:
        self.welcome: Welcome
        self.last_receipt: Receipt | None = None
        self.go_away: GoAway | None = None
        self._socket = socket
        self._auto_ack = auto_ack
        self._seq = 0
        self._frames: asyncio.Queue[Frame | LightconeClientError] = asyncio.Queue()
        self._controls: dict[int, asyncio.Future[None]] = {}
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

    async def start(self, *, index: int | None = None, image: bytes | None = None, seed: int | None = None) -> None:
        """Start again from one of the world's starts, or from a picture (PNG, JPEG or WebP)."""
        await self._control("start", start={"index": index, "image": image, "seed": seed})

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

    async def _control(self, command: str, **values: Any) -> None:
        """Send a control and wait until the server has applied it."""
        self._seq += 1
        seq = self._seq
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._controls[seq] = future
        try:
            await self._send("control", command=command, seq=seq, **values)
            await future
        finally:
            self._controls.pop(seq, None)

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
                self._sort(await self._receive())
        except LightconeClientError as error:
            self._ended = self._ended or error
            self._frames.put_nowait(self._ended)
            for future in self._controls.values():
                if not future.done():
                    future.set_exception(self._ended)

    def _sort(self, data: bytes) -> None:
        match unpack(data):
            case Frame() as frame:
                self._frames.put_nowait(frame)
            case Receipt() as receipt:
                self.last_receipt = receipt
                if receipt.about == "control" and receipt.seq in self._controls:
                    self._controls[receipt.seq].set_result(None)
            case GoAway() as go_away:
                self.go_away = go_away
            case Refusal() as refusal:
                self._refusal(refusal)

    def _refusal(self, refusal: Refusal) -> None:
        if refusal.fatal:
            self._ended = _refused(refusal)
        elif refusal.seq in self._controls:
            self._controls[refusal.seq].set_exception(_refused(refusal))
        else:
            self._frames.put_nowait(_refused(refusal))


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    world: str,
    pacing: Pacing = "realtime",
    encoding: Literal["jpeg", "png"] = "jpeg",
    index: int | None = None,
    image: bytes | None = None,
    seed: int | None = None,
    receipts: bool = False,
    token: str | None = None,
    auto_ack: bool = True,
    timeout_s: float = 30.0,
    on_queued: Callable[[Queued], None] | None = None,
) -> AsyncIterator[Session]:
    """A session in `world` of the server at `url`, open inside `async with`.

    Starts from the world's start `index` or from a picture `image`; `seed` fixes the noise. `encoding="png"` is exact.
    `timeout_s` bounds connecting; waiting in the queue is not bounded (`on_queued` hears of it).
    Raises ConnectionFailedError or RefusedError.
    """
    hello = pack(
        "hello",
        version=PROTOCOL_VERSION,
        world=world,
        encodings=[encoding],
        pacing=pacing,
        start={"index": index, "image": image, "seed": seed},
        receipts=receipts,
        token=token,
    )
    try:
        socket = await websockets.asyncio.client.connect(
            stream_url(url), compression=None, max_size=MAX_MESSAGE_BYTES, open_timeout=timeout_s
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as exc:
        raise ConnectionFailedError(f"no Lightcone server answers at {url}: {exc}") from exc
    session = Session(socket, auto_ack=auto_ack)
    try:
        await session.open(hello, on_queued)
        yield session
    finally:
        await session.close()


def _refused(refusal: Refusal) -> RefusedError:
    return RefusedError(refusal.code, refusal.message, fatal=refusal.fatal, seq=refusal.seq)


def _lost(exc: ConnectionClosed) -> ConnectionLostError:
    return ConnectionLostError(exc.rcvd.code if exc.rcvd else None, exc.rcvd.reason if exc.rcvd else str(exc))


def _now_ms() -> float:
    return time.perf_counter() * 1e3
