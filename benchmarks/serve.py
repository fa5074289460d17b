"""`lightcone bench serve`: many players on one server. Frame rates, action-to-frame latencies, fairness and memory.

A real server process, real WebSocket clients in processes of their own on the same machine (`benchmarks.players`), any
mix of behaviours. Rates and latencies are of those who play by the rules (steady and bursty ones), over the same
seconds for all. `--capacity` plays with more and more of them, and finds the most that hold a frame rate with the 99th
percentile of action-to-frame below a bound. Owns the processes and the figures; nothing of the server.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.play import ROOT, first_world, machine, percentile, server_process
from benchmarks.players import BEHAVIOURS, Seen
from server.errors import ConfigError

PLAYING = ("steady", "bursty")
BUSY = ("hostile", "spinning")
SETTLE_S = 4.0
"""From the last player's connecting to the beginning of the measurement."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """World, players, length; or the capacity that is looked for."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to serve (default: pong)")
    parser.add_argument("--sessions", type=int, default=8, help="steady players (default: 8)")
    parser.add_argument(
        "--mix",
        nargs="+",
        default=[],
        metavar="KIND=N",
        help=f"instead: so many of each kind, of {', '.join(BEHAVIOURS)}",
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure (default: 30)")
    parser.add_argument("--max-sessions", type=int, help="slots of the server (default: one for every player)")
    parser.add_argument("--max-batch", type=int, help="players whose steps go together at most (default: the server's)")
    parser.add_argument(
        "--admission", action="store_true", help="let the server decide who may play (default: all who have a slot)"
    )
    parser.add_argument("--store", action="store_true", help="let the server keep its sessions on disk")
    parser.add_argument("--unpaced", action="store_true", help="as fast as frames are taken, not at the world's rate")
    parser.add_argument("--processes", type=int, default=2, help="processes that the players share (default: 2)")
    parser.add_argument("--capacity", action="store_true", help="find the most players that hold --fps within --bound")
    parser.add_argument("--fps", type=float, help="with --capacity: frames a second of each (default: the world's)")
    parser.add_argument(
        "--bound",
        type=float,
        default=100.0,
        metavar="MS",
        help="with --capacity: action to frame at p99 (default: 100)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a server of `world` is put under, but for the players: see the flags."""

    world: str
    seconds: float
    processes: int = 2
    max_sessions: int | None = None
    max_batch: int | None = None
    unpaced: bool = False
    admission: bool = False
    store: bool = False


def run(args: argparse.Namespace) -> int:
    """Plays and prints what it was like. Raises ConfigError on a mix that is none."""
    kinds = kinds_of(args.mix) if args.mix else ["steady"] * args.sessions
    load = Load(
        world=args.world,
        seconds=args.seconds,
        processes=args.processes,
        max_sessions=args.max_sessions,
        max_batch=args.max_batch,
        unpaced=args.unpaced,
        admission=args.admission,
        store=args.store,
    )
    if args.capacity:
        rows = list(capacity(load, args.fps, args.bound))
        held = [row["sessions"] for row in rows if row["holds"]]
        report = {"world": args.world, "machine": machine(), "bound_ms": args.bound, "capacity": max(held, default=0)}
        print(json.dumps({**report, "rows": rows}, indent=1) if args.json else _capacity_text(report, rows))
        return 0
    report = {"world": args.world, "machine": machine()}
    report |= measure(load, kinds)
    print(json.dumps(report, indent=1) if args.json else _text(report))
    return 0


def kinds_of(mix: Sequence[str]) -> list[str]:
    """One name a player, from `steady=8 stalled=2`."""
    kinds = []
    for part in mix:
        kind, _, number = part.partition("=")
        if kind not in BEHAVIOURS or not number.isdigit():
            raise ConfigError(f"mix has {part!r}; write KIND=N with a kind of {', '.join(BEHAVIOURS)}")
        kinds += [kind] * int(number)
    return kinds


def capacity(load: Load, fps: float | None, bound_ms: float) -> Iterator[dict[str, Any]]:
    """A row for 1, 2, 4, … steady players until they are too many, then for numbers between, by halving."""
    held, too_many, number = 0, 0, 1
    while number and number != too_many:
        row = measure(load, ["steady"] * number)
        wanted = fps or row["fps_target"]
        row["holds"] = min(row["fps_per_session"]) >= 0.95 * wanted and row["action_to_frame_ms_p99"] <= bound_ms
        yield row
        held, too_many = (number, too_many) if row["holds"] else (held, number)
        number = (held + too_many) // 2 if too_many else 2 * number
        if number == held:
            return


def measure(load: Load, kinds: Sequence[str]) -> dict[str, Any]:
    """One server, one set of players: its figures (see `figures`), and the server's memory."""
    flags = [] if load.max_batch is None else ["--max-batch", str(load.max_batch)]
    flags += [] if load.admission else ["--admit-all"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        flags += ["--store", str(folder / "sessions.db")] if load.store else []
        log = stack.enter_context((folder / "log").open("w+"))
        served = server_process(load.world, load.max_sessions or len(kinds), *flags, log=log)
        url, pid = stack.enter_context(served)
        world = first_world(url)
        begin = time.time() + SETTLE_S + 0.15 * len(kinds)
        others = [kind for kind in kinds if kind not in BUSY]
        shares = [others[number :: load.processes] for number in range(load.processes)]
        shares += [
            [kind] for kind in kinds if kind in BUSY
        ]  # alone, or they would keep others of their process waiting
        players = [_players(load, url, world["name"], begin, share) for share in shares if share]
        memory = Memory(pid)
        with memory.watched(begin, begin + load.seconds):
            answers = [process.communicate()[0] for process in players]
        log.seek(0)
        logged = log.read()
    sys.stderr.write(logged)
    if any(process.returncode for process in players):
        raise ConfigError("a process of players failed; its message is above")
    seen = [Seen(**one) for answer in answers for one in json.loads(answer)]
    errors = sum(" ERROR " in line for line in logged.splitlines())
    return {"fps_target": world["fps"], **figures(seen, load.seconds), "errors_logged": errors, **memory.figures()}


def figures(seen: Sequence[Seen], seconds: float) -> dict[str, Any]:
    """Of those who play: frames a second, all together and of each; action to frame over all of their acts; Jain's
    index of their frames (1: equal shares). Of the others: what became of them."""
    playing = [one for one in seen if one.kind in PLAYING]
    rates = [round(one.frames / seconds, 2) for one in playing]
    latencies = [ms for one in playing for ms in one.latencies_ms]
    others = sorted({one.kind for one in seen} - set(PLAYING))
    return {
        "sessions": len(seen),
        "playing": len(playing),
        "fps_total": round(sum(rates), 2),
        "fps_per_session": rates,
        "action_to_frame_ms_p50": round(percentile(latencies, 50), 2),
        "action_to_frame_ms_p99": round(percentile(latencies, 99), 2),
        "p99_per_session": [
            round(percentile(one.latencies_ms, 99), 2) if one.latencies_ms else None for one in playing
        ],
        "actions": len(latencies),
        "jain": round(jain([one.frames for one in playing]), 4),
        "out_of_order": sum(one.out_of_order for one in seen),
        "queued": sum(one.queued > 0 for one in playing),
        "entered": sum(one.queued > 0 and one.frames > 0 for one in playing),
        "ended": sorted(code for one in playing for code in one.ended),
        "others": {kind: _of(kind, seen) for kind in others},
    }


def _of(kind: str, seen: Sequence[Seen]) -> dict[str, Any]:
    members = [one for one in seen if one.kind == kind]
    suffered = [one.suffered_s for one in members if one.suffered_s is not None]
    return {
        "sessions": len(members),
        "connected": sum(one.connected for one in members),
        "frames": sum(one.frames for one in members),
        "resumed": sum(one.resumed for one in members),
        "ended": {code: sum(one.ended.count(code) for one in members) for one in members for code in one.ended},
        **({"suffered_s_max": round(max(suffered), 2)} if suffered else {}),
    }


def jain(shares: Sequence[float]) -> float:
    """(Σx)² / (n Σx²) (Jain, Chiu and Hawe, 1984): 1 where all have as much, 1/n where one has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


@dataclass(slots=True)
class Memory:
    """Resident memory of a process, a sample a second."""

    pid: int
    megabytes: list[float] = field(default_factory=list)

    @contextmanager
    def watched(self, begin: float, end: float) -> Iterator[None]:
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
        """rss_growth: the mean of the last tenth over that of the first, less 1."""
        some = max(1, len(self.megabytes) // 10)
        first, last = (statistics.fmean(part) for part in (self.megabytes[:some], self.megabytes[-some:]))
        return {"rss_mb": round(last, 1), "rss_growth": round(last / first - 1, 4), "rss_curve_mb": self.megabytes}


def resident_mb(pid: int) -> float:
    """As the system's `ps` has it."""
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)  # noqa: S607
    return round(int(told.stdout) / 1024, 1)


def _players(load: Load, url: str, world: str, begin: float, kinds: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.players", "--url", url, "--world", world, "--at", str(begin)]
    command += ["--seconds", str(load.seconds), *(["--unpaced"] if load.unpaced else []), *kinds]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _text(report: dict[str, Any]) -> str:
    rates = report["fps_per_session"]
    return (
        f"{report['world']}, {report['playing']} of {report['sessions']} players play: {report['fps_total']:.1f} "
        f"frames/s together, {min(rates):.1f} to {max(rates):.1f} each (the world's rate is {report['fps_target']:g}); "
        f"action to frame {report['action_to_frame_ms_p50']:.1f} ms at the median, "
        f"{report['action_to_frame_ms_p99']:.1f} at p99; Jain's index {report['jain']:.3f}; "
        f"memory {report['rss_mb']:.0f} MB ({report['rss_growth']:+.1%})"
    )


def _capacity_text(report: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{report['world']} on {report['machine']}: {report['capacity']} players"]
    lines += [
        f"{row['sessions']:>3} players: {row['fps_total']:.1f} frames/s together, "
        f"{min(row['fps_per_session']):.1f} the least, action to frame at p99 {row['action_to_frame_ms_p99']:.1f} ms: "
        f"{'holds' if row['holds'] else 'does not hold'}"
        for row in sorted(rows, key=lambda row: int(row["sessions"]))
    ]
    return "\n".join(lines)
