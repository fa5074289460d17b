"""One player's session, sans I/O: messages in, replies and chunk tickets out. Owns what is played, paused, owed and in
flight; knows no sockets, threads, clocks or tensors (time is handed in, in seconds).
"""

from __future__ import annotations

from collections import deque
from typing import Any, assert_never

from server.engine.scheduler import NEVER, View, grid_point, next_due
from server.errors import UnknownFrameError, UnknownStartError
from server.sessions.chunk import ChunkTicket
from server.sessions.input_buffer import InputBuffer, Sample
from server.sessions.pending_requests import PendingRequests
from server.sessions.run import ForkRequest, RewindRequest, Run, RunRequest, StartRequest
from server.wire.protocol import (
    Ack,
    Act,
    Encoding,
    Fork,
    GetLog,
    Pacing,
    Pause,
    Play,
    Receipt,
    Rewind,
    Save,
    ServerMessage,
    SetPacing,
    SetSpeed,
    Step,
    WorldInfo,
    refusal_of,
)

PLAIN = (
    *("generation", "encoding", "pacing", "_receipts", "_speed", "_paused", "_num_steps"),
    *("_unacked_start", "_next_index", "_next_chunk"),
)
"""What of a session is a plain value and has to be kept, beside its run and its mailbox."""

Request = Act | Ack | Pause | Play | Step | SetPacing | SetSpeed | Rewind | Fork | Save | GetLog


class Session:
    """`world` and `chunk_frames` (pixel frames a chunk) fix the world; `slot` is given by admission."""

    def __init__(
        self,
        key: str,
        world: WorldInfo,
        chunk_frames: int,
        *,
        encoding: Encoding,
        jpeg_quality: int,
        pacing: Pacing,
        receipts: bool,
        max_unacked: int,
        max_pending_acts: int,
        timeline_frames: int = 0,
    ) -> None:
        self.key = key
        self.world = world
        self.encoding: Encoding = encoding
        self.pacing: Pacing = pacing
        self.slot: int | None = None
        self.generation = 0
        self.run = Run(world.name, chunk_frames, timeline_frames)
        self.busy = False  # its slot is being filled or copied: nothing can be made
        self.away_since: float | None = None  # its player's connection is gone: nothing is made
        self.stepped_at = -NEVER
        self._pending = PendingRequests(max_pending_acts)
        self._start_after_seq = -1
        self._unacked_start: int | None = None  # frame index of a start picture
        self._chunk_frames, self._jpeg_quality = chunk_frames, jpeg_quality
        self._receipts, self._max_unacked = receipts, max_unacked
        self._speed: float | None = 1.0
        self._paused, self._num_steps = False, 0
        self._asked_at, self._due_at = 0.0, -NEVER
        self._in_flight: deque[int] = deque()  # last frame index of each unacked chunk
        self._next_index = self._next_chunk = 0
        self._input_buffer = InputBuffer.of(world, max_pending_acts)

    @property
    def period_s(self) -> float:
        """How long one chunk lasts at the session's speed (at the world's own rate when it is unpaced)."""
        return self._chunk_frames / (self.world.fps * (self._speed or 1.0))

    @property
    def num_unacked(self) -> int:
        """Chunks made or being made that the client has not acknowledged."""
        return len(self._in_flight)

    def receive(self, message: Request, now: float) -> list[ServerMessage]:
        """Apply a message. Raises a ServerError for what must be refused; nothing has changed then."""
        match message:
            case Act():
                self._input_buffer.put(message, now, lockstep=self.pacing == "lockstep")
                received = Receipt(about="act", seq=message.seq, status="received", frame=None)
                return [received] if self._receipts else []
            case Ack():
                while self._in_flight and self._in_flight[0] <= message.frame:
                    self._in_flight.popleft()
                if self._unacked_start is not None and self._unacked_start <= message.frame:
                    self._unacked_start = None
                return []
            case Pause() | Play():
                self._paused, self._num_steps = isinstance(message, Pause), 0
                return self.control_applied(message.seq)
            case Step():
                if not self._num_steps:
                    self._asked_at = now
                self._paused, self._num_steps = True, min(self._num_steps + message.num_chunks, 64)
                return self.control_applied(message.seq)
            case SetPacing():
                self.pacing = message.pacing
                if message.pacing == "realtime":
                    self._input_buffer.flatten()
                self._due_at = -NEVER
                return self.control_applied(message.seq)
            case SetSpeed():
                self._speed, self._due_at = message.speed, -NEVER
                return self.control_applied(message.seq)
            case Rewind():
                self.request_start(RewindRequest(run_frame=message.run_frame, control_seq=message.seq), now)
                return []
            case Fork() | Save():
                run_frame = self.run.frame if message.run_frame is None else message.run_frame
                self.run.check_frame(run_frame)
                self._pending.put_fork(ForkRequest(run_frame, message.seq, as_file=isinstance(message, Save)))
                return []
            case GetLog():
                return self.control_applied(message.seq)  # the log itself went before: it takes longer to write down
            case _:
                assert_never(message)

    def request_start(self, request: RunRequest, now: float) -> None:
        """Begin another run as soon as `start_at` allows; the newest request wins. Raises UnknownStartError,
        UnknownFrameError or TooManyPendingError."""
        if isinstance(request, RewindRequest):
            self.run.check_frame(request.run_frame)
        elif isinstance(request, StartRequest) and request.pictures is None and request.index >= len(self.world.starts):
            there = f"0 to {len(self.world.starts) - 1}" if self.world.starts else "none; send a picture"
            raise UnknownStartError(f"start {request.index}: {self.world.name} has {there}")
        self._pending.put_start(request, now)
        self._start_after_seq = self._input_buffer.last_seq

    @property
    def last_seq(self) -> int:
        """The newest act taken, -1 before the first."""
        return self._input_buffer.last_seq

    @property
    def has_begun(self) -> bool:
        """Whether there is a run, or will be without a further word of its player."""
        return self.run.number >= 0 or self._pending.start is not None

    @property
    def last_index(self) -> int:
        """Of the newest frame that is made or being made."""
        return self._next_index - 1

    def come_back(self, last_frame: int | None) -> None:
        """Its player is here again and has every frame up to `last_frame`; or none: then a picture comes first."""
        self.generation, self.away_since = self.generation + 1, None
        if last_frame is not None:
            self.receive(Ack(frame=min(last_frame, self._next_index - 1)), 0.0)
            return
        self._in_flight.clear()
        self._unacked_start = None
        if self.run.number >= 0 and self._pending.start is None:
            self._pending.put_start(RewindRequest(run_frame=self.run.frame), 0.0)

    def fall_back(self, request: RunRequest, last_frame: int | None) -> None:
        """Its player has seen more than it knows of: it goes on from `request`, its numbers from `last_frame`."""
        missing = max(0, (-1 if last_frame is None else last_frame) + 1 - self._next_index)
        self._next_index += missing
        self._next_chunk += missing
        self._in_flight.clear()
        self._unacked_start = None
        self._pending.put_start(request, 0.0)

    def to_data(self) -> dict[str, Any]:
        """Plain values that `restore` makes the same session of. What has been asked for and not been done is lost."""
        plain = {name: getattr(self, name) for name in PLAIN}
        more = {"in_flight": list(self._in_flight), "run": self.run.to_data(), "mailbox": self._input_buffer.to_data()}
        return {**plain, **more}

    def restore(self, data: dict[str, Any], now: float) -> None:
        """Be what another session was when it gave `to_data`. Raises KeyError, TypeError or ValueError."""
        for name in PLAIN:
            setattr(self, name, data[name])
        self._asked_at, self._in_flight = now, deque(data["in_flight"])
        self.run.restore(data["run"])
        self._input_buffer.restore(data["mailbox"], now)

    def start_at(self) -> float:
        """When the wanted start may be carried out. NEVER without one, while acts sent before it wait in lock-step, and
        until the picture of the start before is acknowledged. What else is in flight, a start makes obsolete."""
        return NEVER if self._unacked_start is not None or self._acts_come_first() else self._pending.start_at()

    def fork_at(self) -> float:
        """When the oldest wanted fork may be carried out."""
        return self._pending.fork_at()

    def begin_fork(self, now: float) -> tuple[ForkRequest, list[ServerMessage]]:
        """The fork to carry out now, and a refusal where the world ran on too far meanwhile; it is wanted no longer."""
        request = self._pending.take_fork(now)
        try:
            self.run.check_kept(request.run_frame)
        except UnknownFrameError as error:
            return request, [refusal_of(error, "control", request.control_seq)]
        return request, []

    def _acts_come_first(self) -> bool:
        oldest = self._input_buffer.oldest_seq
        return not self._paused and oldest is not None and oldest <= self._start_after_seq

    def control_applied(self, seq: int | None) -> list[ServerMessage]:
        """The receipt a control with a `seq` is owed."""
        applied = Receipt(about="control", seq=seq or 0, status="applied", frame=self._next_index)
        return [] if seq is None else [applied]

    def view(self) -> View:
        """What the scheduler decides on."""
        return View(
            slot=-1 if self.slot is None else self.slot,
            world=self.world.name,
            ready_at=self._ready_at(),
            period_s=self.period_s,
            unacked=self.num_unacked,
            max_unacked=self._max_unacked,
        )

    def begin_run(self, now: float) -> tuple[RunRequest, ChunkTicket, list[ServerMessage]]:
        """The wanted start is being carried out: the ticket of its one still picture, and the receipts owed for it.
        Chunks in flight are forgotten: the picture takes the place of those that have not left."""
        request, answered = self._pending.take_start(now)
        replies = [receipt for seq in answered for receipt in self.control_applied(seq)]
        self.run.begin(request)
        self._due_at = -NEVER
        self._in_flight.clear()
        self._unacked_start = self._next_index
        return request, self._ticket(1, Sample(), now, generated=False), replies

    def begin_chunk(self, now: float) -> tuple[ChunkTicket, list[ServerMessage]]:
        """A step begins: sample the input at this moment. Returns the chunk's ticket and the receipts owed for it."""
        self._num_steps = max(0, self._num_steps - 1)
        self._asked_at = self.stepped_at = now
        if self._speed is None:
            self._due_at = now
        else:
            due_at = self._due_at if self._due_at > -NEVER else grid_point(now, self.period_s)
            self._due_at = next_due(due_at, self.period_s, now)
        sample = self._input_buffer.sample()
        self.run.log.append(sample)
        index = self._next_index
        applied = [Receipt(about="act", seq=seq, status="applied", frame=index) for seq in sample.acts]
        return self._ticket(self._chunk_frames, sample, now, generated=True), [*applied] if self._receipts else []

    def _ready_at(self) -> float:
        """When the next chunk may begin, as far as pacing goes."""
        if (
            self.away_since is not None
            or self.busy
            or self.run.number < 0
            or (self._pending.start is not None and not self._acts_come_first())
        ):
            return NEVER
        if self._num_steps:
            return self._asked_at
        if self._paused:
            return NEVER
        if self.pacing == "lockstep":
            arrival = self._input_buffer.oldest_arrival
            return NEVER if arrival is None else arrival
        return self._due_at

    def _ticket(self, num_frames: int, sample: Sample, now: float, *, generated: bool) -> ChunkTicket:
        ticket = ChunkTicket(
            world=self.world.name,
            index=self._next_index,
            chunk=self._next_chunk,
            run=self.run.number,
            run_frame=self.run.frame + generated,
            num_frames=num_frames,
            generated=generated,
            keep=not generated or self.pacing == "lockstep" or self._paused,
            encoding=self.encoding,
            jpeg_quality=self._jpeg_quality,
            sample=sample,
            sampled_at=now,
        )
        self._next_index += num_frames
        self._next_chunk += 1
        self.run.frame += num_frames * generated
        self._in_flight.append(self._next_index - 1)
        return ticket
