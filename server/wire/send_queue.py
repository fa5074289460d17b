"""What waits to be sent to one client: control messages, and frames that newer ones may replace.

Owns the order and the bounds of both lanes; knows no sockets. Thread-safe: the engine's threads put, the connection
takes.

Control messages are always sent before frames. In the frame lane a newer chunk replaces the frames that have not been
sent yet (latest wins), except for frames marked `keep`. Flow control bounds the number of those, because an ack counts
only for frames that have been sent. Sent frames are kept until they are acknowledged, so that a client that resumes its
session receives them again (`take_over`).
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
    """The messages for one client.

    `wake` is called, from any thread, when there is something new to take. `count` is called when frames are sent or
    replaced, with their number and "sent" or "replaced".
    """

    def __init__(
        self,
        wake: Callable[[], None],
        count: Callable[[int, FrameFate], None] = lambda _number, _fate: None,
        *,
        max_control: int = MAX_CONTROL,
        max_control_bytes: int = MAX_CONTROL_BYTES,
    ) -> None:
        self._wake, self._count = wake, count
        self.is_detached = False  # whether its connection is gone
        self._max_control = max_control
        self._max_control_bytes = max_control_bytes
        self._num_control_bytes = 0
        self._lock = threading.Lock()
        self._control: deque[bytes] = deque()
        self._frames: deque[tuple[int, bytes, bool]] = deque()  # index, message, keep
        self._unacked: deque[tuple[int, bytes]] = deque()  # index, message; sent already
        self._successor: SendQueue | None = None
        self.last_taken = -1
        self.num_dropped = 0
        self.overflowed = False
        self.ending: ServerError | None = None

    def put(self, *messages: ServerMessage) -> None:
        """Queue control messages. Sets `overflowed` if the client causes replies faster than it reads them."""
        self.put_encoded(*(encode(message) for message in messages))

    def put_encoded(self, *messages: bytes) -> None:
        """Queue control messages that are already encoded, like `put`."""
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
        """Queue one chunk's frames in place of those still waiting, except for waiting frames marked `keep`."""
        with self._lock:
            successor = self._successor
            if successor is None:
                remaining = deque(frame for frame in self._frames if frame[2])
                num_replaced = len(self._frames) - len(remaining)
                self.num_dropped += num_replaced
                remaining.extend((index, data, keep) for index, data in enumerate(frames, start=first_index))
                self._frames = remaining
        if successor is not None:
            successor.put_frames(first_index, frames, keep=keep)
            return
        if num_replaced:
            self._count(num_replaced, "replaced")
        self._wake()

    def acknowledge(self, frame: int) -> None:
        """Forget the sent frames up to this index: the client has presented them."""
        with self._lock:
            while self._unacked and self._unacked[0][0] <= frame:
                self._unacked.popleft()

    def end(self, error: ServerError) -> None:
        """Close the connection with `error` once the control lane is empty. No more frames are sent."""
        with self._lock:
            self.ending = self.ending or error
        self._wake()

    def detach(self) -> None:
        """Stop calling `wake`: the connection is gone."""
        with self._lock:
            self._wake, self.is_detached = _do_nothing, True

    def take(self) -> bytes | None:
        """Return the next message to send, or None."""
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

    def unacknowledged(self, after: int = -1) -> list[tuple[int, bytes]]:
        """Return (index, message) of the frames above `after` that were sent and not acknowledged, or still wait."""
        with self._lock:
            waiting = [(index, data) for index, data, _ in self._frames]
            return [frame for frame in (*self._unacked, *waiting) if frame[0] > after]

    def take_over(self, predecessor: SendQueue, after: int) -> None:
        """Continue for a connection that was lost.

        Its unacknowledged frames above index `after` are sent again, and frames put there from now on come here.
        """
        with predecessor._lock:  # of another queue, but of the same class
            predecessor._successor, predecessor._wake = self, _do_nothing
        self.requeue(predecessor.unacknowledged(after), predecessor.last_taken)

    def requeue(self, frames: Iterable[tuple[int, bytes]], last_taken: int) -> None:
        """Put earlier frames first in the frame lane, marked `keep`. last_taken: the newest frame already sent once."""
        with self._lock:
            self._frames.extendleft((index, data, True) for index, data in reversed(list(frames)))
            self.last_taken = max(self.last_taken, last_taken)
        self._wake()

    @property
    def num_frame_bytes(self) -> int:
        """Number of bytes waiting in the frame lane."""
        with self._lock:
            return sum(len(data) for _, data, _ in self._frames)


def _do_nothing() -> None:
    """Replace `wake` when there is no connection to wake."""
