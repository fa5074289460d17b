"""What waits to be sent to one client: a lane for control messages and a droppable lane for frames.

Owns their order and bounds; knows no sockets. Thread-safe: the engine's threads put, the connection takes.

Control messages always leave before frames. In the frame lane a newer chunk replaces what has not left yet (latest
wins), except frames that must be seen. Flow control bounds those: an ack counts only for frames that have left.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from server.errors import ServerError
from server.protocol import ServerMessage, encode

FrameFate = Literal["sent", "replaced"]
MAX_CONTROL = 256
MAX_CONTROL_BYTES = 8 * 1024 * 1024


class Outbox:
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
            kept = deque(waiting for waiting in self._frames if waiting[2])
            num_replaced = len(self._frames) - len(kept)
            self.num_dropped += num_replaced
            kept.extend((index, data, keep) for index, data in enumerate(frames, start=first_index))
            self._frames = kept
        if num_replaced:
            self._count(num_replaced, "replaced")
        self._wake()

    def end(self, error: ServerError) -> None:
        """Close the connection with `error` once what is queued in the control lane has left."""
        with self._lock:
            self.ending = self.ending or error
            self._frames.clear()
        self._wake()

    def take(self) -> bytes | None:
        """The next message to send, or None."""
        with self._lock:
            if self._control:
                data = self._control.popleft()
                self._num_control_bytes -= len(data)
                return data
            if not self._frames:
                return None
            self.last_taken, data, _ = self._frames.popleft()
        self._count(1, "sent")
        return data

    @property
    def num_frame_bytes(self) -> int:
        """Bytes waiting in the frame lane."""
        with self._lock:
            return sum(len(data) for _, data, _ in self._frames)
