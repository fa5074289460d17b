"""Which frames of a session are in flight. Owns the numbers of frames and chunks and what the client has not yet
acknowledged; knows no time, pictures or sockets."""

from __future__ import annotations

from collections import deque
from typing import Any


class FlowControl:
    """Counts chunks out and acknowledged frames in. max_unacked: the most chunks in flight."""

    def __init__(self, max_unacked: int) -> None:
        self.max_unacked = max_unacked
        self.next_index = 0
        self.next_chunk = 0
        self._in_flight: deque[int] = deque()  # last frame index of each unacked chunk
        self._unacked_start: int | None = None  # frame index of a start picture

    @property
    def num_unacked(self) -> int:
        """Return the number of chunks, generated or being generated, that the client has not acknowledged."""
        return len(self._in_flight)

    @property
    def awaits_start_ack(self) -> bool:
        """Return whether the picture of the newest start is not yet acknowledged."""
        return self._unacked_start is not None

    def acknowledge(self, frame: int) -> None:
        """Count all frames up to `frame` as presented; any number is accepted."""
        while self._in_flight and self._in_flight[0] <= frame:
            self._in_flight.popleft()
        if self._unacked_start is not None and self._unacked_start <= frame:
            self._unacked_start = None

    def forget(self) -> None:
        """Count nothing as in flight."""
        self._in_flight.clear()
        self._unacked_start = None

    def begin_run(self) -> None:
        """Forget the chunks in flight; the next frame is a start picture."""
        self._in_flight.clear()
        self._unacked_start = self.next_index

    def begin_chunk(self, num_frames: int) -> tuple[int, int]:
        """Put a chunk in flight. Return the index of its first frame and its own number."""
        index, chunk = self.next_index, self.next_chunk
        self.next_index += num_frames
        self.next_chunk += 1
        self._in_flight.append(self.next_index - 1)
        return index, chunk

    def skip_past(self, frame: int) -> None:
        """Continue the numbers after `frame` if they are not past it already; nothing is in flight then."""
        num_missing = max(0, frame + 1 - self.next_index)
        self.next_index += num_missing
        self.next_chunk += num_missing
        self.forget()

    def to_data(self) -> dict[str, Any]:
        """Return plain values for `restore`."""
        return {
            "next_index": self.next_index,
            "next_chunk": self.next_chunk,
            "in_flight": list(self._in_flight),
            "unacked_start": self._unacked_start,
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Continue from `to_data`. Raise KeyError or TypeError."""
        self.next_index, self.next_chunk = data["next_index"], data["next_chunk"]
        self._in_flight, self._unacked_start = deque(data["in_flight"]), data["unacked_start"]
