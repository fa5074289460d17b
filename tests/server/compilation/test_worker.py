"""The compiling process: it answers each job, gives way to everybody, and never outlives who started it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.compilation.background import ROOT, Worker
from server.compilation.parts import Part
from server.compilation.worker import COMMAND, serve
from world.errors import CompilationError

WITHIN_S = 120.0
EAGER = "from server.compilation import worker; worker.give_way = lambda: None; "
"""Begins a worker that does not give way: beside other tests it would wait for ever."""


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s: {what}"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_each_job_is_answered_and_a_failure_is_an_answer() -> None:
    ended = threading.Event()
    made = []

    def make(**job: Any) -> None:
        if job["batch"] == 2:
            raise RuntimeError("the compiler says no")
        made.append(job["batch"])

    answers = io.StringIO()
    serve(io.StringIO('{"batch": 1}\n{"batch": 2}\n{"batch": 4}\n'), answers, end=ended.set, make=make)
    assert ended.wait(WITHIN_S)
    lines = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert lines == [{}, {"error": "RuntimeError: the compiler says no"}, {}]
    assert made == [1, 4]


def test_a_job_that_cannot_be_done_raises_and_the_process_goes_on(tmp_path: Path) -> None:
    worker = Worker((sys.executable, "-P", "-c", EAGER + "worker.main()"))
    try:
        for _ in range(2):
            with pytest.raises(CompilationError, match="no world at"):
                worker.make(Part(world="ghost", folder=tmp_path, dtype="float32", batch=1))
    finally:
        worker.end()
    with pytest.raises(CompilationError, match="ended"):
        worker.make(Part(world="ghost", folder=tmp_path, dtype="float32", batch=1))


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs Linux")
def test_it_has_the_lowest_priority_from_its_beginning() -> None:
    with subprocess.Popen(COMMAND, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as process:
        _until(lambda: os.getpriority(os.PRIO_PROCESS, process.pid) == 19, "it is nice")
        process.kill()
    code = "from server.compilation import worker; worker.give_way(); print('gives way', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "gives way\n"
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_ends_with_its_compilers_when_the_server_is_killed(tmp_path: Path) -> None:
    """The worker runs a "compiler" that would sleep for long; the process that started the worker is killed."""
    pids = tmp_path / "pids"
    make = f"""
import os, subprocess, sys
{EAGER}
def make(**_):
    with subprocess.Popen(["sleep", "600"]) as compiler:
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{compiler.pid}}")
worker.make = make
worker.main()
"""
    server = f"""
from pathlib import Path
import sys
from server.compilation.background import Worker
from server.compilation.parts import Part
worker = Worker((sys.executable, "-c", {make!r}))
worker.make(Part(world="w", folder=Path(), dtype="float32", batch=1))
"""
    with subprocess.Popen([sys.executable, "-c", server], cwd=ROOT) as process:
        try:
            _until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the worker compiles")
            children = [int(pid) for pid in pids.read_text().split()]
            assert all(map(_is_alive, children))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    _until(lambda: not any(map(_is_alive, children)), "worker and compiler have ended")
