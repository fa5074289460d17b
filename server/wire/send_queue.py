"""What waits to be sent to one client: a lane for control messages and a droppable lane for frames.

Owns their order and bounds; knows no sockets. Thread-safe: the engine's threads put, the connection takes.

Control messages always leave before frames. In the frame lane a newer chunk replaces what has not left yet (latest
wins), except frames that must be seen. Flow control bounds those: an ack counts only for frames that have left.
Frames that have left are kept until they are acknowledged: whoever comes back gets them again (`take_over`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from server.errors import ServerError
from server.wire.protocol import ServerMessage, encode

FrameFate = Literal["sent", "replaced"]
MAX_CONTROL = 256
MAX_CONTROL_BYTES = 8 * 1024 * 1024


class SendQueue:
    """`wake` is called, from any thread, whenever there is something new to take; `count`, when frames leave or are
    replaced, with their number and "sent" or "replaced"."""

    def __init__(
        self,
        wake: Callable[[], None],
        count: Callable[[int, FrameFate], None] = lambda _number, _fate: None,
        *,
        max_control: int = MAX_CONTROL,
        max_control_bytes: int = MAX_CONTROL_BYTES,
    ) -> None:
        self._wake, self._count = wake, count
        self._max_control = max_control
        self._max_control_bytes = max_control_bytes
        self._num_control_bytes = 0
        self._lock = threading.Lock()
        self._control: deque[bytes] = deque()
        self._frames: deque[tuple[int, bytes, bool]] = deque()  # index, message, must be seen
        self._unacked: deque[tuple[int, bytes]] = deque()  # have left
        self._successor: SendQueue | None = None
        self.last_taken = -1
        self.num_dropped = 0
        self.overflowed = False
        self.ending: ServerError | None = None

    def put(self, *messages: ServerMessage) -> None:
        """Queue control messages. A client that makes replies and reads none ends up `overflowed`."""
        self.put_encoded(*(encode(message) for message in messages))

    def put_encoded(self, *messages: bytes) -> None:
        """`put` of what is encoded already."""
        with self._lock:
            for data in messages:
                too_large = self._num_control_bytes + len(data) > self._max_control_bytes
                if too_large or len(self._control) >= self._max_control:
                    self.overflowed = True
                else:
                    self._control.append(data)
                    self._num_control_bytes += len(data)
        self._wake()

    def put_frames(self, first_index: int, frames: Sequence[bytes], *, keep: bool) -> None:
        """Queue one chunk's frames, in place of those that still wait; but nothing replaces frames to `keep`."""
        with self._lock:
            successor = self._successor
            if successor is None:
                kept = deque(waiting for waiting in self._frames if waiting[2])
                num_replaced = len(self._frames) - len(kept)
                self.num_dropped += num_replaced
                kept.extend((index, data, keep) for index, data in enumerate(frames, start=first_index))
                self._frames = kept
        if successor is not None:
            successor.put_frames(first_index, frames, keep=keep)
            return
        if num_replaced:
            self._count(num_replaced, "replaced")
        self._wake()

    def acked(self, frame: int) -> None:
        """What has left up to this frame has been presented."""
        with self._lock:
            while self._unacked and self._unacked[0][0] <= frame:
                self._unacked.popleft()

    def end(self, error: ServerError) -> None:
        """Close the connection with `error` once what is queued in the control lane has left. No frame leaves."""
        with self._lock:
            self.ending = self.ending or error
        self._wake()

    def silence(self) -> None:
        """Nobody takes any more: the connection is gone."""
        with self._lock:
            self._wake = _nobody

    def take(self) -> bytes | None:
        """The next message to send, or None."""
        with self._lock:
            if self._control:
                data = self._control.popleft()
                self._num_control_bytes -= len(data)
                return data
            if not self._frames or self.ending is not None or self._successor is not None:
                return None
            index, data, _ = self._frames.popleft()
            self.last_taken = max(self.last_taken, index)
            self._unacked.append((index, data))
        self._count(1, "sent")
        return data

    def unseen(self, after: int = -1) -> list[tuple[int, bytes]]:
        """Frames with a larger index that have left unacknowledged, or wait; with their index, in order."""
        with self._lock:
            waiting = [(index, data) for index, data, _ in self._frames]
            return [frame for frame in (*self._unacked, *waiting) if frame[0] > after]

    def take_over(self, before: SendQueue, after: int) -> None:
        """Go on for a connection that was lost: its unseen frames with an index larger than `after` are sent again, and
        what is put there from now on comes here."""
        with before._lock:  # one outbox goes on for the other
            before._successor, before._wake = self, _nobody
        self.put_again(before.unseen(after), before.last_taken)

    def put_again(self, frames: Iterable[tuple[int, bytes]], last_taken: int) -> None:
        """Frames of before; they come first, and nothing replaces them. last_taken: the newest that has left once."""
        with self._lock:
            self._frames.extendleft((index, data, True) for index, data in reversed(list(frames)))
            self.last_taken = max(self.last_taken, last_taken)
        self._wake()

    @property
    def num_frame_bytes(self) -> int:
        """Bytes waiting in the frame lane."""
        with self._lock:
            return sum(len(data) for _, data, _ in self._frames)


def _nobody() -> None:
    """Nobody is to be woken."""
