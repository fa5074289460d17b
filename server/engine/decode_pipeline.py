"""From latents to frames in the send queues, on the decode thread: tick i is decoded while the model steps tick i + 1.

Knows no scheduling and changes no session: all it needs is in the tickets. At most `DEPTH` ticks wait, so the model
cannot run ahead of what is shown. After a failure ticks pass through undecoded, so that nobody waits for them.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from server.engine.model_runner import ModelRunner, Stepped
from server.errors import InternalError
from server.sessions.chunk import ChunkTicket
from server.telemetry.log import session_key
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import TickTrace
from server.wire.frames import encode_picture
from server.wire.protocol import Frame, Timings, encode
from server.wire.send_queue import SendQueue

logger = logging.getLogger(__name__)

DEPTH = 2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Row:
    """One session's part of a tick."""

    key: str
    slot: int
    ticket: ChunkTicket
    send_queue: SendQueue


@dataclass(frozen=True, slots=True)
class Tick:
    """Latents that `runner` decodes for `rows`; or, without a runner, finished pictures: uint8 `b f h w 3`."""

    rows: Sequence[Row]
    runner: ModelRunner | None
    content: Stepped | NDArray[np.uint8]
    trace: TickTrace = field(default_factory=TickTrace)


class DecodePipeline:
    """The decode thread and its work. `on_failure(exc, world)` is called once, on this thread, when a tick of `world`
    cannot be decoded."""

    def __init__(self, on_failure: Callable[[Exception, str], None], metrics: Metrics) -> None:
        self._on_failure = on_failure
        self._metrics = metrics
        self._failed = False
        self._work: queue.Queue[Tick | Callable[[], None] | None] = queue.Queue(maxsize=DEPTH)
        self._waiting: Counter[int] = Counter()
        self._handled = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="lightcone-decode", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, tick: Tick) -> None:
        """Queue a tick; block while `DEPTH` ticks wait already."""
        with self._handled:
            self._waiting.update(row.slot for row in tick.rows)
        self._work.put(tick)

    def wait_for(self, slot: int) -> None:
        """Block until every tick of `slot` that was put so far has been handled."""
        with self._handled:
            self._handled.wait_for(lambda: not self._waiting[slot])

    def call(self, work: Callable[[], _T]) -> _T:
        """Run `work` on the decode thread. Return its result, or raise what it raised."""
        future: Future[_T] = Future()
        self._work.put(partial(_run_for, future, work))
        return future.result()

    def try_call(self, work: Callable[[], _T]) -> Future[_T] | None:
        """Have `work` run on the decode thread if nothing waits there; else return None. Never blocks."""
        future: Future[_T] = Future()
        if not self._work.empty():
            return None
        with contextlib.suppress(queue.Full):
            self._work.put_nowait(partial(_run_for, future, work))
            return future
        return None

    def stop(self) -> None:
        """Handle what was put and end the thread."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if not isinstance(work, Tick):
                work()
                continue
            try:
                if not self._failed:
                    self._handle(work)
            except Exception as exc:  # noqa: BLE001  # whatever a codec raises, all sessions must end
                self._failed = True
                self._on_failure(exc, work.rows[0].ticket.world)
            work.trace.end()
            with self._handled:
                self._waiting.subtract(row.slot for row in work.rows)
                self._handled.notify_all()

    def _handle(self, tick: Tick) -> None:
        step_ms = decode_ms = 0.0
        content = tick.content
        if isinstance(content, Stepped):
            assert tick.runner is not None
            began = time.perf_counter()
            with tick.trace.part("decode"):
                pictures = tick.runner.decode(content, [row.slot for row in tick.rows])
            step_ms, decode_ms = content.step_ms, (time.perf_counter() - began) * 1e3
            self._metrics.decode_s.labels(tick.rows[0].ticket.world).observe(decode_ms / 1e3)
            tick.runner.note_tick(len(tick.rows), content, decode_ms)
        else:
            pictures = content
        encoding = time.thread_time()
        with tick.trace.part("encode"):
            for row, chunk in zip(tick.rows, pictures, strict=True):
                session_key.set(row.key)
                if len(chunk) != row.ticket.num_frames:
                    raise InternalError(f"a chunk has {len(chunk)} pixel frames instead of {row.ticket.num_frames}")
                try:
                    frames = frame_messages(row.ticket, chunk, step_ms, decode_ms, len(tick.rows))
                except Exception:  # a picture that cannot be encoded is its own session's fault
                    logger.exception("a chunk of session %s cannot be encoded", row.key)
                    row.send_queue.end(InternalError("this session failed; the server's log says why. Join again"))
                    continue
                row.send_queue.put_frames(row.ticket.index, frames, keep=row.ticket.keep)
                if row.ticket.sample.acts and (stamp := row.ticket.sample.stamp):
                    self._metrics.action_to_frame_s.observe(time.monotonic() - stamp.arrived_at)
        self._metrics.frame_cost.encoded(time.thread_time() - encoding)
        session_key.set("-")


def _run_for(future: Future[_T], work: Callable[[], _T]) -> None:
    try:
        future.set_result(work())
    except Exception as exc:  # noqa: BLE001  # whoever has the future raises it
        future.set_exception(exc)


def frame_messages(
    ticket: ChunkTicket, chunk: NDArray[np.uint8], step_ms: float, decode_ms: float, batch_size: int
) -> list[bytes]:
    """Return the messages for a chunk's pictures, uint8 `f h w 3`."""
    stamp = ticket.sample.stamp
    waited_ms = (ticket.sampled_at - stamp.arrived_at) * 1e3 if ticket.sample.acts and stamp else 0.0
    messages = []
    for offset, picture in enumerate(chunk):
        began = time.perf_counter()
        payload = encode_picture(picture, ticket.encoding, ticket.jpeg_quality)
        encode_ms = (time.perf_counter() - began) * 1e3
        frame = Frame(
            index=ticket.index + offset,
            chunk=ticket.chunk,
            run=ticket.run,
            run_frame=ticket.run_frame + offset,
            kind="generated" if ticket.generated else "start",
            end_of_chunk=offset == len(chunk) - 1,
            encoding=ticket.encoding,
            payload=payload,
            applied_seq=stamp.seq if stamp else None,
            t_client_echo=stamp.t_client if stamp else None,
            timings=Timings(
                queue_ms=waited_ms,
                step_ms=step_ms,
                decode_ms=decode_ms,
                encode_ms=encode_ms,
                batch_size=batch_size,
            ),
        )
        messages.append(encode(frame))
    return messages
