"""What this machine is doing besides."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from world import device
from world.device import OtherProcesses
from world.runtime.busy import busy_processes


class Clock:
    """A machine with two cores of four for this process; counts are in hundredths of a second."""

    def __init__(self, stat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stat, self.seconds, self.own_s = stat, 100.0, 3.0
        self.cores = [[0] * 10 for _ in range(4)]
        monkeypatch.setattr(device, "usable_cores", lambda: {1, 2})
        monkeypatch.setattr(time, "monotonic", lambda: self.seconds)
        monkeypatch.setattr(os, "times", lambda: os.times_result((self.own_s, 0.0, 0.0, 0.0, 0.0)))
        monkeypatch.setattr(os, "sysconf", lambda _: 100)
        self.write()

    def write(self) -> None:
        lines = [f"cpu{number} {' '.join(map(str, counts))}" for number, counts in enumerate(self.cores)]
        self.stat.write_text("\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 5 0 1", "ctxt 77", ""]))

    def tick(self, counts: dict[tuple[int, int], int], own_s: float) -> None:
        """Let a second pass. counts: hundredths by core and column."""
        for (core, column), count in counts.items():
            self.cores[core][column] += count
        self.seconds, self.own_s = self.seconds + 1.0, self.own_s + own_s
        self.write()


@pytest.mark.parametrize(
    ("counts", "own_s", "expected"),
    [
        ({(1, 0): 100, (2, 0): 50}, 0.6, 0.9),
        ({(1, 0): 60, (2, 3): 100}, 0.6, 0.0),  # idle
        ({(1, 1): 100}, 0.0, 0.0),  # low priority
        ({(0, 0): 100, (3, 0): 100}, 0.0, 0.0),  # other cores
        ({(1, 2): 20, (1, 7): 80, (2, 0): 100}, 0.0, 2.0),  # system, and another machine on the same hardware
        ({(1, 0): 10}, 0.5, 0.0),  # counted a little late
    ],
)
def test_the_cores_that_others_take(
    counts: dict[tuple[int, int], int], own_s: float, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "stat", monkeypatch)
    others = OtherProcesses(clock.stat)
    clock.tick(counts, own_s)
    assert others.cores() == pytest.approx(expected)
    assert others.cores() == 0.0, "no time has passed"
    clock.tick({(1, 0): 30}, 0.0)
    assert others.cores() == pytest.approx(0.3), "since the last call"


def test_where_nothing_is_counted_others_take_nothing(tmp_path: Path) -> None:
    assert OtherProcesses(tmp_path / "missing").cores() == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="counts of Linux")
@pytest.mark.skipif(os.nice(0) > 0, reason="busy processes would run at low priority, too")
def test_busy_processes_are_seen() -> None:
    num_cores = len(device.usable_cores())
    with busy_processes(num_cores):
        others = OtherProcesses()
        time.sleep(0.5)
        assert num_cores / 2 < others.cores() < num_cores + 0.5
