"""The play benchmark measures what it claims to measure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightcone_client import Frame, Timings, connect

import lightcone
from benchmarks import play
from benchmarks.play import Record, address_of, figures, percentile, watch
from server.errors import ConfigError
from tests.server.serving import RunningServer
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[3]


def frame(index: int, applied_seq: int | None) -> Frame:
    timings = Timings(1.0, 2.0, 3.0, 4.0, 1)
    return Frame(index, index, 0, index, "generated", True, "jpeg", b"", applied_seq, None, timings)


def test_an_actions_latency_ends_with_the_first_frame_that_contains_it() -> None:
    record = Record(arrived=[1.0, 1.5, 2.0, 4.1], sent={1: 0.9, 2: 1.4, 3: 1.6, 4: 5.0})
    record.frames = [frame(1, None), frame(2, 1), frame(3, 3), frame(5, 3)]
    assert record.latencies_ms() == pytest.approx([600.0, 600.0, 400.0])
    measured = figures(record)
    assert (measured["frames"], measured["frames_dropped"], measured["actions"]) == (4, 1, 3)
    assert measured["fps_median"] == 1.0  # 2, 1 and 0 frames in the three full seconds
    assert measured["step_ms_p50"] == 2.0


def test_percentiles_are_observed_values() -> None:
    values = [float(value) for value in range(100)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50.0, 99.0, 99.0)
    with pytest.raises(ConfigError, match="--seconds"):
        percentile([], 50)


def test_waiting_for_a_server_that_is_never_ready_ends() -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(silent, stdout=subprocess.PIPE, text=True) as process:
        with pytest.raises(ConfigError, match=r"not ready in 0\.2 s"):
            address_of(process, "pong", timeout_s=0.2)
        assert process.poll() is not None


async def test_an_error_while_sending_input_ends_the_measurement(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> int:
        raise ZeroDivisionError

    async with connect(server.url, world="pixel") as session:
        monkeypatch.setattr(session, "act", broken)
        with pytest.raises(ZeroDivisionError):
            await watch(session, 30.0, Record())


def test_it_plays_a_real_server_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # for other machines
    tiny_world().save(tmp_path / "tiny")
    command = ["lightcone.py", "bench", "play", "--world", str(tmp_path / "tiny"), "--seconds", "1", "--json"]
    command += ["--beside", "1"]
    answer = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert [row["beside"] for row in report["beside"]] == [0, 1]
    for row in report["beside"]:
        assert row["fps_target"] == 30.0
        assert 0 < row["fps_median"] <= 35
        assert 0 < row["action_to_frame_ms_p50"] <= row["action_to_frame_ms_p99"]
        assert row["frames"] > 10
        assert 0 < row["first_frame_ms"] < 1e3 * row["ready_s"] < 120e3


PLAYED: dict[str, Any] = {
    "players": 1,
    "fps_target": 30.0,
    "fps_median": 30.0,
    "action_to_frame_ms_p50": 31.0,
    "action_to_frame_ms_p99": 50.0,
}


def test_it_plays_alone_first_and_then_beside_busy_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server and the players are replaced; the order is what counts, and what is printed."""
    events: list[str] = []

    @contextmanager
    def served(*_: object) -> Iterator[tuple[str, int]]:
        events.append("server")
        yield "http://127.0.0.1:1", 0

    @contextmanager
    def busy(number: int) -> Iterator[None]:
        events.append(f"{number} start")
        try:
            yield
        finally:
            events.append(f"{number} end")

    async def played(*_: object) -> dict[str, Any]:
        events.append("play")
        if len(events) > 10:
            raise KeyboardInterrupt
        return PLAYED

    monkeypatch.setattr(play, "server_process", served)
    monkeypatch.setattr(play, "busy_processes", busy)
    monkeypatch.setattr(play, "play", played)
    words = ["bench", "play", "--beside", "2", "0"]
    assert lightcone.main(words) == 0
    assert events == ["server", "0 start", "play", "0 end", "server", "2 start", "play", "2 end"]
    alone, beside = capsys.readouterr().out.splitlines()
    assert "beside" not in alone
    assert "beside 2 busy processes: 30.00 frames/s" in beside

    events.clear()
    assert lightcone.main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["beside"]
    assert [(row["beside"], row["fps_median"]) for row in rows] == [(0, 30.0), (2, 30.0)]
    assert lightcone.main(words) == lightcone.EXIT_INTERRUPTED
    assert events[-2:] == ["play", "0 end"]


def test_a_negative_number_of_processes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert lightcone.main(["bench", "play", "--beside", "-1"]) == 2
    assert "--beside -1: give numbers" in capsys.readouterr().err
