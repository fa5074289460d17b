"""Busy processes compute until they are ended, and end for certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from world.runtime.busy import busy_processes

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
from world.runtime.busy import busy_processes
with busy_processes(2) as ids:
    print(*ids, flush=True)
    input()
"""


def _runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    try:  # one that has ended stays listed until its parent, here perhaps nobody, asks for its result
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()


def _ended(process_ids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(map(_runs, process_ids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(_runs, process_ids))


def test_they_run_inside_the_block_only() -> None:
    with busy_processes(2) as ids:
        assert len(set(ids)) == 2
        assert all(map(_runs, ids))
    assert not any(map(_runs, ids))
    with busy_processes(0) as none:
        assert none == []


def test_they_end_with_an_error_in_the_block() -> None:
    with pytest.raises(KeyboardInterrupt), busy_processes(1) as ids:
        raise KeyboardInterrupt
    assert not any(map(_runs, ids))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_they_end_when_their_owner_does(end: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with owner:
        assert owner.stdout is not None
        ids = [int(number) for number in owner.stdout.readline().split()]
        assert len(ids) == 2
        owner.send_signal(end)
        owner.wait(20)
    assert _ended(ids)
