"""What waits to be sent to one client: a lane for control messages and a droppable lane for frames.

Owns their order and bounds; knows no sockets. Thread-safe: the engine's threads put, the connection takes.

Control messages always leave before frames. In the frame lane a newer chunk replaces what has not left yet (latest
wins), unless the session must see every frame; flow control bounds it then.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from server.errors import ServerError
from server.protocol import ServerMessage, encode

MAX_CONTROL = 256


class Outbox:
    """`wake` is called, from any thread, whenever there is something new to take."""

    def __init__(self, wake: Callable[[], None], max_control: int = MAX_CONTROL) -> None:
        self._wake = wake
        self._max_control = max_control
        self._lock = threading.Lock()
        self._control: deque[bytes] = deque()
        self._frames: deque[bytes] = deque()
        self.num_dropped = 0
        self.overflowed = False
        self.ending: ServerError | None = None

    def put(self, message: ServerMessage) -> None:
        """Queue a control message. A client that makes replies and reads none ends up `overflowed`."""
        data = encode(message)
        with self._lock:
            if len(self._control) >= self._max_control:
                self.overflowed = True
            else:
                self._control.append(data)
        self._wake()

    def put_frames(self, frames: Sequence[bytes], *, keep: bool) -> None:
        """Queue one chunk's frames, in place of those still waiting unless `keep`."""
        with self._lock:
            if not keep:
                self.num_dropped += len(self._frames)
                self._frames.clear()
            self._frames.extend(frames)
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
                return self._control.popleft()
            return self._frames.popleft() if self._frames else None

    @property
    def num_frame_bytes(self) -> int:
        """Bytes waiting in the frame lane."""
        with self._lock:
            return sum(len(frame) for frame in self._frames)
