"""Long commands end within moments of SIGINT and SIGTERM, leave no process behind, and say how to go on.

With real processes: each command leads a session of its own, so that whatever it started can be counted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lightcone
from distill.training.state import trained_steps
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0
"""Far less than each command would take, and enough on a busy machine."""


@contextmanager
def command(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "LIGHTCONE_RUNS": str(folder / "runs"), "LIGHTCONE_CACHE": str(folder / "cache")}
    line = [sys.executable, str(ROOT / "lightcone.py"), *words]
    with subprocess.Popen(
        line, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the command did not come so far"
        time.sleep(0.05)


def living(session: int) -> list[str]:
    """The living processes of a session."""
    listing = subprocess.run(["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listing.splitlines()]
    return [row[2] for row in rows if row[0] == str(session) and not row[1].startswith("Z")]


def stop(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Stop a command by a signal to its first process only, and return what it says."""
    process.send_signal(number)
    errors = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    wait_until(lambda: not living(process.pid))
    return errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_collect_stops_and_keeps_complete_streams(tmp_path: Path, number: signal.Signals) -> None:
    """With an environment whose pictures SDL makes: it would take SIGTERM for itself."""
    words = ("collect", "--env", "CarRacing-v3", "--name", "cars", "--streams", "2", "--frames", "100000")
    with command(tmp_path, *words) as process:
        wait_until(lambda: len(living(process.pid)) > 2 or process.poll() is not None)
        time.sleep(2.0)  # into the games
        said = stop(process, number)
    assert "stopped; what is complete is kept; the same command records the rest" in said


def test_workers_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    with command(tmp_path, "collect", "--env", "bouncer", "--streams", "2", "--frames", "1000000") as process:
        wait_until(lambda: len(living(process.pid)) > 2)
        process.kill()
        process.communicate()
        wait_until(lambda: not living(process.pid))


def test_train_stops_saves_at_once_and_continues_there(tmp_path: Path) -> None:
    with command(tmp_path, "collect", "--env", "bouncer", "--streams", "2", "--frames", "100") as process:
        process.communicate(timeout=PATIENCE_S)
    words = ("train", "--env", "bouncer", "--preset", "smoke", "--stage", "codec", "--steps", "100000")
    codec = tmp_path / "runs" / "bouncer" / "codec"
    with command(tmp_path, *words) as process:
        metrics = codec / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 3)
        said = stop(process, signal.SIGTERM)
    assert "every complete step is saved; the same command continues there" in said
    steps = trained_steps(codec)
    assert steps >= len(metrics.read_text().splitlines())
    with command(tmp_path, *words) as process:
        wait_until(lambda: len(metrics.read_text().splitlines()) > steps)
        said = stop(process, signal.SIGINT)
    assert f"resumed codec at step {steps}" in said


def test_a_benchmark_stops_with_its_server_and_players(tmp_path: Path) -> None:
    tiny_world().save(tmp_path / "tiny")
    words = ("bench", "serve", "--world", str(tmp_path / "tiny"), "--sessions", "2", "--seconds", "1000")
    with command(tmp_path, *words) as process:
        wait_until(lambda: any("benchmarks.players" in line for line in living(process.pid)))
        said = stop(process, signal.SIGTERM)
    assert "stopped; nothing was measured" in said


@pytest.mark.parametrize("verb", [name for name, verb in lightcone.VERBS.items() if verb.stopped])
def test_commands_that_are_stopped_while_they_load_say_so(tmp_path: Path, verb: str) -> None:
    words = {"bench": ("step",), "eval": ("pong",), "collect": ("pong",), "train": ("pong",)}.get(verb, ())
    with command(tmp_path, verb, *words) as process:
        wait_until(lambda: "SigCgt" in (status := Path(f"/proc/{process.pid}/status").read_text()) and _catches(status))
        said = stop(process, signal.SIGTERM)
    assert f"lightcone {verb}: stopped; " in said


def _catches(status: str) -> bool:
    """Whether a process has a handler for SIGTERM."""
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)
