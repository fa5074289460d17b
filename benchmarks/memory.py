"""The resident memory of another process over time. Owns how it is sampled and summed up; knows no servers."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Memory:
    """Resident memory of a process, sampled once per second."""

    pid: int
    megabytes: list[float] = field(default_factory=list)

    @contextmanager
    def watched(self, begin: float, end: float) -> Iterator[None]:
        """Sample the memory in a thread from `begin` to `end` (seconds since the epoch)."""
        done = threading.Event()

        def watch() -> None:
            done.wait(max(0.0, begin - time.time()))
            while time.time() < end and not done.wait(1.0):
                self.megabytes.append(resident_mb(self.pid))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def figures(self) -> dict[str, Any]:
        """Return the figures. rss_growth: mean of the last tenth of the samples / mean of the first tenth − 1."""
        tenth = max(1, len(self.megabytes) // 10)
        first, last = (statistics.fmean(part) for part in (self.megabytes[:tenth], self.megabytes[-tenth:]))
        return {"rss_mb": round(last, 1), "rss_growth": round(last / first - 1, 4), "rss_curve_mb": self.megabytes}


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process as reported by `ps`."""
    listing = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)  # noqa: S607
    return round(int(listing.stdout) / 1024, 1)
