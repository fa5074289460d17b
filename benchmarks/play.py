"""`lightcone bench play`: frames per second and action-to-frame latency of a served world, from a player's view.

Uses a real server process and a real client on loopback that changes keys a few times per second. The world runs at
its own rate or, with `--unpaced`, as fast as the client acknowledges. action_to_frame is the time from sending an act
to receiving the first frame whose `applied_seq` covers it, including decoding of the picture. ready_s is the time from
starting the process until it is ready, first_frame_ms from connecting (before `hello`) until the first picture is
decoded. With `--beside 1 2` it plays alone first, then beside one and two processes that compute all the time and start
when the server is ready, as a browser or a build may do. Owns the client and the figures; nothing of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lightcone_client import Frame, Session, connect

from server.errors import ConfigError
from world.runtime.busy import busy_processes

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0
WARM_UP_S = 2.0
HOLD_S = (0.13, 0.31, 0.22, 0.17, 0.41, 0.26)  # how long each key state is held: a few irregular changes per second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for world, length and pacing."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to play (default: pong)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to play (default: 60)")
    parser.add_argument(
        "--unpaced", action="store_true", help="play as fast as the client acknowledges instead of at the world's rate"
    )
    parser.add_argument("--players", type=int, default=1, help="players at once; the first is measured (default: 1)")
    parser.add_argument("--threads", type=int, help="CPU threads of the model (default: chosen by the server)")
    parser.add_argument(
        "--beside",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="also play beside N processes that keep a core busy each, after a control without any",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Play and print the figures. Raises ConfigError for a negative number of processes."""
    if min(args.beside, default=0) < 0:
        raise ConfigError(f"--beside {min(args.beside)}: give numbers of processes, from 0 on")
    threads = () if args.threads is None else ("--threads", str(args.threads))
    pacing = "unpaced" if args.unpaced else "real time"
    report: dict[str, Any] = {"world": args.world, "pacing": pacing, "machine": machine()}
    rows = []
    for beside in dict.fromkeys((0, *args.beside)):
        started = time.perf_counter()
        with server_process(args.world, args.players, *threads) as (url, _):
            ready_s = round(time.perf_counter() - started, 2)
            with busy_processes(beside):
                row = asyncio.run(play(url, args.seconds, args.unpaced, args.players))
        rows.append({"beside": beside, "ready_s": ready_s, **row})
        if not args.json:
            print(_text(report, rows[-1]), flush=True)
    if args.json:
        print(json.dumps({**report, "beside": rows} if args.beside else {**report, **rows[0]}, indent=1))
    return 0


def _text(report: dict[str, Any], row: dict[str, Any]) -> str:
    beside = f", beside {row['beside']} busy process{'es' * (row['beside'] > 1)}" if row["beside"] else ""
    return (
        f"{report['world']}, {report['pacing']}, {row['players']} player(s){beside}: "
        f"{row['fps_median']:.2f} frames/s (the world's rate is {row['fps_target']:g}), action to frame "
        f"{row['action_to_frame_ms_p50']:.1f} ms at the median, {row['action_to_frame_ms_p99']:.1f} ms at p99"
    )


@contextmanager
def server_process(world: str, players: int, *flags: str, log: IO[str] | None = None) -> Iterator[tuple[str, int]]:
    """Run `lightcone serve` in a process of its own, without compiling in the background; yield its URL and process id
    once it is ready.

    log: file for its warnings (default: this process's standard error). Raises ConfigError if it does not start.
    """
    command = [sys.executable, str(ROOT / "lightcone.py"), "serve", "--world", world, "--port", "0"]
    command += ["--max-sessions", str(max(players, 1)), "--log-level", "warning", "--no-compile", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        with killed_if_raised(process):
            yield address_of(process, world), process.pid
        process.terminate()


@contextmanager
def killed_if_raised(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a process at once if the block raises, as after Ctrl-C, instead of waiting for its orderly end."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def address_of(process: subprocess.Popen[str], world: str, timeout_s: float = START_TIMEOUT_S) -> str:
    """Return the URL that the server prints when it is ready. Raises ConfigError if it ends or takes too long."""
    alarm = threading.Timer(timeout_s, process.kill)
    alarm.start()
    try:
        for line in process.stdout or ():
            if found := re.search(r"http://\S+", line):
                return found[0]
    finally:
        alarm.cancel()
        alarm.join()
    if process.wait() == -signal.SIGKILL:
        raise ConfigError(
            f"the server of world {world!r} was not ready in {timeout_s:g} s: check whether the machine is busy"
        )
    raise ConfigError(f"the server of world {world!r} ended before it was ready; its message is above")


@dataclass(slots=True)
class Record:
    """One player's frames and their arrival times (seconds), the sending time of each act, and first_frame_s, the time
    from connecting to the first frame."""

    arrived: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    sent: dict[int, float] = field(default_factory=dict)
    first_frame_s: float = math.nan

    def latencies_ms(self) -> list[float]:
        """Return the time from sending each act to the first frame that covers it."""
        latencies = []
        waiting = sorted(self.sent.items())
        for arrival, frame in zip(self.arrived, self.frames, strict=True):
            while waiting and frame.applied_seq is not None and waiting[0][0] <= frame.applied_seq:
                latencies.append((arrival - waiting.pop(0)[1]) * 1e3)
        return latencies


async def play(url: str, seconds: float, unpaced: bool, players: int) -> dict[str, Any]:
    """Let `players` play concurrently for `seconds`; return the figures of the first."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(play_one(url, seconds, unpaced)) for _ in range(players)]
    fps, record = tasks[0].result()
    first_frame_ms = round(1e3 * record.first_frame_s, 1)
    return {"players": players, "fps_target": fps, "first_frame_ms": first_frame_ms, **figures(record)}


async def play_one(url: str, seconds: float, unpaced: bool) -> tuple[float, Record]:
    """Play as one player after a warm-up; return the world's frame rate and the record."""
    world = (await asyncio.to_thread(first_world, url))["name"]
    connecting = time.perf_counter()
    async with connect(url, world=world) as session:
        _ = (await session.frame()).picture
        first_frame_s = time.perf_counter() - connecting
        if unpaced:
            await session.set_speed(None)
        await watch(session, WARM_UP_S, Record())
        record = Record(first_frame_s=first_frame_s)
        await watch(session, seconds, record)
        return session.world.fps, record


async def watch(session: Session, seconds: float, record: Record) -> None:
    """Receive frames and change keys for `seconds`."""
    end = time.perf_counter() + seconds
    keys = asyncio.create_task(toggle(session, record))
    try:
        async for frame in session:
            _ = frame.picture  # decode it, as a player would
            record.arrived.append(time.perf_counter())
            record.frames.append(frame)
            if record.arrived[-1] >= end or keys.done():
                return
    finally:
        keys.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keys  # raises its error, if it failed


async def toggle(session: Session, record: Record) -> None:
    """Press and release the world's buttons in turn."""
    names = [button.name for button in session.world.buttons]
    states = [held for name in names for held in ((name,), ())] or [()]
    count = 0
    while True:
        sent_at = time.perf_counter()
        record.sent[await session.act(states[count % len(states)])] = sent_at
        await asyncio.sleep(HOLD_S[count % len(HOLD_S)])
        count += 1


def fetched(url: str) -> dict[str, Any]:
    """Return the JSON of an address of this machine, without the proxies that the environment names."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def first_world(url: str) -> dict[str, Any]:
    """Return the server's description of its first world."""
    first: dict[str, Any] = fetched(f"{url}/v1/worlds")["worlds"][0]
    return first


def figures(record: Record) -> dict[str, Any]:
    """Return rates and latencies. fps_median: median number of frames per complete second."""
    first = record.arrived[0]
    per_second: dict[int, int] = {}
    for arrival in record.arrived:
        per_second[int(arrival - first)] = per_second.get(int(arrival - first), 0) + 1
    complete = [per_second.get(second, 0) for second in range(int(record.arrived[-1] - first))]
    latencies = record.latencies_ms()
    return {
        "fps_median": statistics.median(complete) if complete else float(len(record.arrived)),
        "fps_mean": round((len(record.arrived) - 1) / (record.arrived[-1] - first), 2),
        "action_to_frame_ms_p50": round(percentile(latencies, 50), 2),
        "action_to_frame_ms_p99": round(percentile(latencies, 99), 2),
        "actions": len(latencies),
        "frames": len(record.frames),
        "frames_dropped": record.frames[-1].index - record.frames[0].index + 1 - len(record.frames),
        **{
            f"{name}_p50": round(statistics.median(getattr(frame.timings, name) for frame in record.frames), 2)
            for name in ("queue_ms", "step_ms", "decode_ms", "encode_ms")
        },
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile. Raises ConfigError without values."""
    if not values:
        raise ConfigError("no frame covered any action: play longer (--seconds)")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def machine() -> str:
    """Return the processor's name and the number of cores this process may use."""
    info = Path("/proc/cpuinfo")  # exists on Linux
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()}, {usable} of {os.cpu_count()} cores"
