"""One player's session, sans I/O: messages in, replies and chunk tickets out. Owns what is played, paused, owed and in
flight; knows no sockets, threads, clocks or tensors (times are passed in, in seconds).
"""

from __future__ import annotations

from typing import Any, assert_never

from server.errors import UnknownFrameError, UnknownStartError
from server.sessions.chunk import ChunkTicket
from server.sessions.flow_control import FlowControl
from server.sessions.input_buffer import InputBuffer, Sample
from server.sessions.life import Phase, SessionLife
from server.sessions.pacing import NEVER, Pace, SchedulerView
from server.sessions.pending_requests import PendingRequests
from server.sessions.run import ForkRequest, RewindRequest, Run, RunRequest, StartRequest, slack_chunks
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
)

Request = Act | Ack | Pause | Play | Step | SetPacing | SetSpeed | Rewind | Fork | Save | GetLog


class Session:
    """A session in one world, whose chunks have `chunk_frames` pixel frames. `life` says what may happen to it."""

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
        self.key, self.world = key, world
        self.encoding: Encoding = encoding
        self.pacing: Pacing = pacing
        self.life = SessionLife()
        self.generation, self.stepped_at = 0, -NEVER
        self.run = Run(world.name, chunk_frames, timeline_frames, slack_chunks(chunk_frames / world.fps))
        self._pending = PendingRequests(max_pending_acts)
        self._start_after_seq = -1
        self._chunk_frames, self._jpeg_quality = chunk_frames, jpeg_quality
        self._receipts = receipts
        self._pace, self._flow = Pace(), FlowControl(max_unacked)
        self._input_buffer = InputBuffer.of(world, max_pending_acts)

    @property
    def period_s(self) -> float:
        """Return how long one chunk lasts at the session's speed (at the world's own rate without a pace)."""
        return self._chunk_frames / (self.world.fps * (self._pace.speed or 1.0))

    @property
    def num_unacked(self) -> int:
        """Return the number of chunks, generated or being generated, that the client has not acknowledged."""
        return self._flow.num_unacked

    @property
    def last_seq(self) -> int:
        """Return the number of the newest accepted act, -1 before the first."""
        return self._input_buffer.last_seq

    @property
    def has_begun(self) -> bool:
        """Return whether there is a run, or will be without another message of the player."""
        return self.run.number >= 0 or self._pending.start is not None

    @property
    def last_index(self) -> int:
        """Return the index of the newest frame, generated or being generated; -1 before the first."""
        return self._flow.next_index - 1

    def receive(self, message: Request, now: float) -> list[ServerMessage]:
        """Apply a message. Raise a ServerError for one that must be refused; nothing has changed then."""
        match message:
            case Act():
                self._input_buffer.put(message, now, lockstep=self.pacing == "lockstep")
                received = Receipt(about="act", seq=message.seq, status="received", frame=None)
                return [received] if self._receipts else []
            case Ack():
                self._flow.acknowledge(message.frame)
                return []
            case Pause() | Play():
                self._pace.pause(paused=isinstance(message, Pause))
                return self.control_applied(message.seq)
            case Step():
                self._pace.step(message.num_chunks, now)
                return self.control_applied(message.seq)
            case SetPacing():
                self.pacing = message.pacing
                if message.pacing == "realtime":
                    self._input_buffer.flatten()
                self._pace.reset()
                return self.control_applied(message.seq)
            case SetSpeed():
                self._pace.set_speed(message.speed)
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
                return self.control_applied(message.seq)  # the log itself is sent by the caller, as it takes longer
            case _:
                assert_never(message)

    def request_start(self, request: RunRequest, now: float) -> None:
        """Begin another run as soon as `start_at` allows; the newest request replaces older ones. Raise
        UnknownStartError, UnknownFrameError or TooManyPendingError."""
        if isinstance(request, RewindRequest):
            self.run.check_frame(request.run_frame)
            if self.life.is_empty:
                raise UnknownFrameError(f"frame {request.run_frame}: rewind once the resumed run has shown its picture")
        elif isinstance(request, StartRequest) and request.pictures is None and request.index >= len(self.world.starts):
            starts = f"starts 0 to {len(self.world.starts) - 1}" if self.world.starts else "no starts; send a picture"
            raise UnknownStartError(f"start {request.index}: {self.world.name} has {starts}")
        self._pending.put_start(request, now)
        self._start_after_seq = self._input_buffer.last_seq

    # ---- connections

    def reconnect(self, last_frame: int | None) -> None:
        """Continue over another connection, whose client has every frame up to `last_frame`; None: it has no picture at
        all, so it gets one first. Raises nothing: any `last_frame` is accepted."""
        self.life.reconnect()
        self._continue(last_frame)

    def resume(self, last_frame: int | None) -> None:
        """Go from suspended back to the queue with the exact state; last_frame: as in `reconnect`."""
        self.life.resume(exact=True)
        self._continue(last_frame)

    def restart(self, request: RunRequest, last_frame: int | None) -> None:
        """Go from suspended back to the queue without the exact state: begin a new run with `request`.

        The player has seen more than is known here; frame numbers continue after `last_frame`.
        """
        self.life.resume(exact=False)
        self.generation += 1
        self._flow.skip_past(-1 if last_frame is None else last_frame)
        self._pending.put_start(request, 0.0, is_restart=True)

    def _continue(self, last_frame: int | None) -> None:
        self.generation += 1
        if last_frame is not None:
            self._flow.acknowledge(last_frame)
            return
        self._flow.forget()
        if self.run.number >= 0 and self._pending.start is None:
            self._pending.put_start(RewindRequest(run_frame=self.run.frame), 0.0)

    # ---- stored sessions

    def to_data(self) -> dict[str, Any]:
        """Return plain values for `restore`. Pending requests are not included."""
        return {
            "generation": self.generation,
            "encoding": self.encoding,
            "pacing": self.pacing,
            "receipts": self._receipts,
            "pace": self._pace.to_data(),
            "flow_control": self._flow.to_data(),
            "run": self.run.to_data(),
            "input_buffer": self._input_buffer.to_data(),
        }

    def restore(self, data: dict[str, Any], now: float) -> None:
        """Become the session that `to_data` described, suspended. Raise KeyError, TypeError or ValueError."""
        self.life, self.generation = SessionLife(Phase.SUSPENDED), data["generation"]
        self.encoding, self.pacing, self._receipts = data["encoding"], data["pacing"], data["receipts"]
        self._pace.restore(data["pace"], now)
        self._flow.restore(data["flow_control"])
        self.run.restore(data["run"])
        self._input_buffer.restore(data["input_buffer"], now)

    # ---- slot jobs

    def start_at(self) -> float:
        """Return when the pending start may begin. NEVER without one, while acts sent before it wait in lock-step, and
        until the picture of the previous start is acknowledged; other chunks in flight become obsolete."""
        if not self.life.may_fill or self._flow.awaits_start_ack or self._acts_come_first():
            return NEVER
        return self._pending.start_at(forks_first=not self.life.is_empty)  # an empty slot has nothing to fork

    def fork_at(self) -> float:
        """Return when the oldest pending fork may begin."""
        return self._pending.fork_at() if self.life.may_copy else NEVER

    def refuse_rewind(self, now: float) -> list[ServerMessage] | None:
        """Drop a pending rewind to a frame that is no longer kept. Return the refusals owed; None if there is none."""
        request = self._pending.start
        if not isinstance(request, RewindRequest) or self.run.keeps(request.run_frame):
            return None
        return self.run.refusals(request.run_frame, self._pending.take_start(now)[1])

    def begin_run(self, now: float) -> tuple[RunRequest, ChunkTicket, list[ServerMessage]]:
        """Begin to fill the slot with the pending start; `life.filled` ends it. Return the request, the ticket of its
        start picture and the replies owed. The picture replaces chunks in flight that have not left."""
        stray = self._pending.take_forks() if self.life.is_empty and not self._pending.is_restart else []
        self.life.begin_fill()
        request, answered = self._pending.take_start(now)
        replies = [receipt for seq in answered for receipt in self.control_applied(seq)]
        self.run.begin(request)
        replies += [answer for fork in stray for answer in self.run.refusals(fork.run_frame, [fork.control_seq])]
        self._pace.reset()
        self._flow.begin_run()
        return request, self._ticket(1, Sample(), now, generated=False), replies

    def begin_fork(self, now: float) -> tuple[ForkRequest, list[ServerMessage]]:
        """Begin to copy for the oldest pending fork; `life.copied` ends it. Return the request; if the run has moved
        too far ahead meanwhile, also a refusal, and nothing has begun."""
        request = self._pending.take_fork(now)
        if not self.run.keeps(request.run_frame):
            return request, self.run.refusals(request.run_frame, [request.control_seq])
        self.life.begin_copy()
        return request, []

    def control_applied(self, seq: int | None) -> list[ServerMessage]:
        """Return the receipt that is owed for a control with a `seq`."""
        applied = Receipt(about="control", seq=seq or 0, status="applied", frame=self._flow.next_index)
        return [] if seq is None else [applied]

    def _acts_come_first(self) -> bool:
        if self._pace.is_paused or self.life.is_empty:  # no acts are applied now
            return False
        oldest = self._input_buffer.oldest_seq
        return oldest is not None and oldest <= self._start_after_seq

    # ---- steps

    def view(self) -> SchedulerView:
        """Return what the scheduler decides on."""
        return SchedulerView(
            slot=-1 if self.life.slot is None else self.life.slot,
            world=self.world.name,
            ready_at=self._ready_at(),
            period_s=self.period_s,
            unacked=self.num_unacked,
            max_unacked=self._flow.max_unacked,
        )

    def begin_chunk(self, now: float) -> tuple[ChunkTicket, list[ServerMessage]]:
        """Begin a step with the newest input. Return the chunk's ticket and the receipts owed for it."""
        self._pace.begin_chunk(now, self.period_s)
        self.stepped_at = now
        sample = self._input_buffer.sample()
        self.run.log.append(sample)
        index = self._flow.next_index
        applied = [Receipt(about="act", seq=seq, status="applied", frame=index) for seq in sample.acts]
        return self._ticket(self._chunk_frames, sample, now, generated=True), [*applied] if self._receipts else []

    def _ready_at(self) -> float:
        """Return when the next chunk may begin, flow control aside."""
        if not self.life.may_step or (self._pending.start is not None and not self._acts_come_first()):
            return NEVER
        return self._pace.ready_at(self._input_buffer.oldest_arrival, lockstep=self.pacing == "lockstep")

    def _ticket(self, num_frames: int, sample: Sample, now: float, *, generated: bool) -> ChunkTicket:
        index, chunk = self._flow.begin_chunk(num_frames)
        ticket = ChunkTicket(
            world=self.world.name,
            index=index,
            chunk=chunk,
            run=self.run.number,
            run_frame=self.run.frame + generated,
            num_frames=num_frames,
            generated=generated,
            keep=not generated or self.pacing == "lockstep" or self._pace.is_paused,
            encoding=self.encoding,
            jpeg_quality=self._jpeg_quality,
            sample=sample,
            sampled_at=now,
        )
        self.run.frame += num_frames * generated
        return ticket
