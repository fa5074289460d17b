"""`lightcone bench serve`: many players on one server. Frame rates, action-to-frame latencies, fairness and memory.

Uses a real server process and real WebSocket clients in separate processes on the same machine (`benchmarks.players`),
with any mix of behaviours. Rates and latencies are those of the steady and bursty players, over the same seconds for
all. `--capacity` searches for the largest number of steady players that keep a frame rate with the 99th percentile of
action-to-frame below a bound. Owns the processes and the figures; nothing of the server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.attackers import ATTACKS
from benchmarks.memory import Memory
from benchmarks.play import ROOT, first_world, killed_if_raised, machine, percentile, server_process
from benchmarks.players import BEHAVIOURS, Seen
from server.errors import ConfigError

PLAYING = ("steady", "bursty")
BUSY = ("hostile", "spinning", *ATTACKS)
SETTLE_S = 4.0
"""Time between the last player's connection and the start of the measurement."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for world, players and length, and for the search for the capacity."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to serve (default: pong)")
    parser.add_argument("--sessions", type=int, default=8, help="steady players (default: 8)")
    parser.add_argument(
        "--mix",
        nargs="+",
        default=[],
        metavar="KIND=N",
        help=f"players of each kind instead of --sessions; kinds: {', '.join(BEHAVIOURS)}",
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure (default: 30)")
    parser.add_argument("--max-sessions", type=int, help="slots of the server (default: one per player)")
    parser.add_argument("--max-batch", type=int, help="largest batch of the model (default: the server's)")
    parser.add_argument(
        "--admission",
        action="store_true",
        help="use the server's admission control (default: admit everybody with a slot)",
    )
    parser.add_argument("--store", action="store_true", help="let the server store its sessions on disk")
    parser.add_argument(
        "--unpaced", action="store_true", help="play as fast as clients acknowledge instead of at the world's rate"
    )
    parser.add_argument("--processes", type=int, default=2, help="number of processes for the players (default: 2)")
    parser.add_argument("--capacity", action="store_true", help="find how many players keep --fps within --bound")
    parser.add_argument(
        "--fps",
        type=float,
        help="with --capacity: frames per second of each player (default: the world's)",
    )
    parser.add_argument(
        "--bound",
        type=float,
        default=100.0,
        metavar="MS",
        help="with --capacity: bound of action to frame at p99 (default: 100)",
    )
    parser.add_argument(
        "--attacks",
        nargs="*",
        choices=tuple(ATTACKS),
        metavar="KIND",
        help="compare the frames of the steady players under each attack, and under all at once, with a control that "
        f"only spins; kinds (default: all): {', '.join(ATTACKS)}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The settings of a measurement except the players; see the options of the same names.

    guarded: whether players, who share an address, have the share and the budget of one. duty: of spinning players.
    """

    world: str
    seconds: float
    processes: int = 2
    max_sessions: int | None = None
    max_batch: int | None = None
    unpaced: bool = False
    admission: bool = False
    store: bool = False
    guarded: bool = False
    duty: float = 1.0


def run(args: argparse.Namespace) -> int:
    """Play and print the figures. Raises ConfigError for an invalid mix."""
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
    if args.attacks is not None:
        return _run_attacks(args, load, kinds.count("steady"))
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


def _run_attacks(args: argparse.Namespace, load: Load, num_steady: int) -> int:
    from benchmarks.attacks import attacked, text  # it measures with this module

    if num_steady < 1:
        raise ConfigError("--attacks compares the frames of steady players: give --sessions N or --mix steady=N")
    rows = []
    for row in attacked(load, num_steady, args.attacks or list(ATTACKS)):
        rows.append(row)
        if not args.json:
            print(text(row), flush=True)
    if args.json:
        print(json.dumps({"world": args.world, "machine": machine(), "rows": rows}, indent=1))
    return 0


def kinds_of(mix: Sequence[str]) -> list[str]:
    """Return one kind per player, from a mix such as `steady=8 stalled=2`. Raises ConfigError for an invalid mix."""
    kinds = []
    for part in mix:
        kind, _, number = part.partition("=")
        if kind not in BEHAVIOURS or not number.isdigit():
            raise ConfigError(f"mix has {part!r}; write KIND=N with a kind of {', '.join(BEHAVIOURS)}")
        kinds += [kind] * int(number)
    return kinds


def capacity(load: Load, fps: float | None, bound_ms: float) -> Iterator[dict[str, Any]]:
    """Yield a row for 1, 2, 4, … steady players until there are too many, then for the bisection in between."""
    held, too_many, number = 0, 0, 1
    while number and number != too_many:
        row = measure(load, ["steady"] * number)
        required = fps or row["fps_target"]
        row["holds"] = min(row["fps_per_session"]) >= 0.95 * required and row["action_to_frame_ms_p99"] <= bound_ms
        yield row
        held, too_many = (number, too_many) if row["holds"] else (held, number)
        number = (held + too_many) // 2 if too_many else 2 * number
        if number == held:
            return


def measure(load: Load, kinds: Sequence[str]) -> dict[str, Any]:
    """Run one server with one set of players; return its figures (see `figures`) and the server's memory."""
    flags = [] if load.max_batch is None else ["--max-batch", str(load.max_batch)]
    flags += [] if load.admission else ["--admit-all"]
    flags += [] if load.guarded else ["--address-share", "1", "--address-budget", "1000000"]
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
        shares += [[kind] for kind in kinds if kind in BUSY]  # in their own process, or they would delay other players
        players = [stack.enter_context(_players(load, url, world["name"], begin, share)) for share in shares if share]
        memory = Memory(pid)
        with memory.watched(begin, begin + load.seconds):
            answers = [process.communicate()[0] for process in players]
        log.seek(0)
        logged = log.read()
    sys.stderr.write(logged)
    if any(process.returncode for process in players):
        raise ConfigError("a process of players failed: see its message above")
    seen = [Seen(**entry) for answer in answers for entry in json.loads(answer)]
    errors = sum(" ERROR " in line for line in logged.splitlines())
    return {"fps_target": world["fps"], **figures(seen, load.seconds), "errors_logged": errors, **memory.figures()}


def figures(seen: Sequence[Seen], seconds: float) -> dict[str, Any]:
    """Return the figures of all players.

    For steady and bursty players: frames per second in total and for each, action to frame over all acts, and Jain's
    index of their frames (1: equal shares). For the others: a summary per kind.
    """
    playing = [player for player in seen if player.kind in PLAYING]
    rates = [round(player.frames / seconds, 2) for player in playing]
    latencies = [ms for player in playing for ms in player.latencies_ms]
    others = sorted({player.kind for player in seen} - set(PLAYING))
    return {
        "sessions": len(seen),
        "playing": len(playing),
        "fps_total": round(sum(rates), 2),
        "fps_per_session": rates,
        "action_to_frame_ms_p50": round(percentile(latencies, 50), 2),
        "action_to_frame_ms_p99": round(percentile(latencies, 99), 2),
        "p99_per_session": [
            round(percentile(player.latencies_ms, 99), 2) if player.latencies_ms else None for player in playing
        ],
        "actions": len(latencies),
        "jain": round(jain([player.frames for player in playing]), 4),
        "out_of_order": sum(player.out_of_order for player in seen),
        "queued": sum(player.queued > 0 for player in playing),
        "entered": sum(player.queued > 0 and player.frames > 0 for player in playing),
        "ended": sorted(code for player in playing for code in player.ended),
        "others": {kind: _of(kind, seen) for kind in others},
    }


def _of(kind: str, seen: Sequence[Seen]) -> dict[str, Any]:
    players = [player for player in seen if player.kind == kind]
    suffered = [player.suffered_s for player in players if player.suffered_s is not None]
    codes = Counter(code for player in players for code in player.ended)
    return {
        "sessions": len(players),
        "connected": sum(player.connected for player in players),
        "frames": sum(player.frames for player in players),
        "resumed": sum(player.resumed for player in players),
        "ended": dict(codes),
        "duty": round(max((player.duty for player in players), default=0.0), 3),
        **({"suffered_s_max": round(max(suffered), 2)} if suffered else {}),
    }


def jain(shares: Sequence[float]) -> float:
    """Return (Σx)² / (n Σx²): 1 for equal shares, 1/n if one has everything (Jain, Chiu and Hawe, 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


@contextmanager
def _players(load: Load, url: str, world: str, begin: float, kinds: list[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.players", "--url", url, "--world", world, "--at", str(begin)]
    command += ["--seconds", str(load.seconds), "--duty", str(load.duty)]
    command += [*(["--unpaced"] if load.unpaced else []), *kinds]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process, killed_if_raised(process):
        yield process


def _text(report: dict[str, Any]) -> str:
    rates = report["fps_per_session"]
    return (
        f"{report['world']}, {report['playing']} of {report['sessions']} players play: {report['fps_total']:.1f} "
        f"frames/s in total, {min(rates):.1f} to {max(rates):.1f} each (the world's rate is {report['fps_target']:g}); "
        f"action to frame {report['action_to_frame_ms_p50']:.1f} ms at the median, "
        f"{report['action_to_frame_ms_p99']:.1f} at p99; Jain's index {report['jain']:.3f}; "
        f"memory {report['rss_mb']:.0f} MB ({report['rss_growth']:+.1%})"
    )


def _capacity_text(report: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{report['world']} on {report['machine']}: {report['capacity']} players"]
    lines += [
        f"{row['sessions']:>3} players: {row['fps_total']:.1f} frames/s in total, "
        f"{min(row['fps_per_session']):.1f} at least, action to frame at p99 {row['action_to_frame_ms_p99']:.1f} ms: "
        f"{'holds' if row['holds'] else 'does not hold'}"
        for row in sorted(rows, key=lambda row: int(row["sessions"]))
    ]
    return "\n".join(lines)
