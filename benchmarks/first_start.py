"""`lightcone bench first-start`: a server's first minutes on a machine that has nothing compiled and nothing measured.

Starts a real server with an empty cache, which compiles in the background. One player plays all the time; before, and
after everything is compiled, further players join one by one until one has to wait. Then `lightcone bench step` prints
the ratio of a step to its bare matrix products with what was compiled. Owns the figures; nothing of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from lightcone_client import connect

from benchmarks.play import ROOT, fetched, first_world, machine, percentile, server_process
from server.errors import ConfigError

MOST = 6
"""More players are not tried: the server keeps some slots for other addresses."""
SETTLE_S = 3.0
"""So long all players play together before the next joins; who waits longer than this has no place."""
TRIALS_S = 10.0
"""From the end of compiling until the code that came last has been tried."""
POLL_S = 1.0
PERIOD_S = 10
"""Frames are counted by periods of this length."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for world and length."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to play (default: pong)")
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="the most to play while the server compiles (default: 6)"
    )
    parser.add_argument(
        "--sessions", type=int, nargs="+", default=[1, 8], help="numbers of sessions to print the ratio for"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Play the first minutes and print the figures. Raises ConfigError for a length that is not positive."""
    if args.minutes <= 0:
        raise ConfigError(f"--minutes {args.minutes}: give a length above 0")
    with tempfile.TemporaryDirectory(prefix="lightcone-first-start-") as cache, _environment(LIGHTCONE_CACHE=cache):
        began = time.perf_counter()
        with server_process(args.world, MOST + 2, "--compile") as (url, _):
            ready_s = round(time.perf_counter() - began, 1)
            figures = asyncio.run(_play(url, args.minutes * 60))
        steps = _steps(args.world, args.sessions)
    report = {"world": args.world, "ready_s": ready_s, **figures, "step": steps, "machine": machine()}
    print(json.dumps(report, indent=1) if args.json else _text(report))
    return 0


@dataclass(slots=True)
class Watch:
    """What one player sees. arrived: times of its frames; compilation: when `/readyz` first said what."""

    fps: float = 0.0
    arrived: list[float] = field(default_factory=list)
    compilation: dict[str, float] = field(default_factory=dict)

    def kept(self) -> list[float]:
        """Return the share of the frames that arrived, in each complete period."""
        first = self.arrived[0]
        counts = [0] * int((self.arrived[-1] - first) // PERIOD_S)
        for arrival in self.arrived:
            if (period := int((arrival - first) // PERIOD_S)) < len(counts):
                counts[period] += 1
        return [count / (PERIOD_S * self.fps) for count in counts]


async def _play(url: str, longest_s: float) -> dict[str, Any]:
    began, watch = time.monotonic(), Watch()  # the server compiles from now on, also while it is asked who fits
    world = (await asyncio.to_thread(first_world, url))["name"]
    fitted_before = await _number_that_fits(url, world)
    player = asyncio.create_task(_keep_playing(url, world, asyncio.Event(), watch))
    while time.monotonic() - began < longest_s and not player.done():
        status = await asyncio.to_thread(_compilation, url)
        watch.compilation.setdefault(status, round(time.monotonic() - began, 1))
        if not status.startswith("compiling"):
            await asyncio.sleep(TRIALS_S)
            break
        await asyncio.sleep(POLL_S)
    compiled_s = round(time.monotonic() - began, 1)
    player.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await player  # raises its error, if it failed
    kept = watch.kept()
    if not kept:
        raise ConfigError(f"everything was compiled within {compiled_s} s: nothing to measure")
    return {
        "players_before": fitted_before,
        "compilation": watch.compilation,
        "minutes": round(compiled_s / 60, 2),
        "kept_median": round(percentile(kept, 50), 3),
        "kept_least": round(min(kept), 3),
        "kept_mean": round(sum(kept) / len(kept), 3),
        "players_after": await _number_that_fits(url, world),
    }


async def _number_that_fits(url: str, world: str) -> int:
    """Return how many players the server admits when one after the other joins, all of them playing."""
    players: list[asyncio.Task[None]] = []
    try:
        while len(players) < MOST:
            admitted = asyncio.Event()
            players.append(asyncio.create_task(_keep_playing(url, world, admitted, Watch())))
            try:
                await asyncio.wait_for(admitted.wait(), SETTLE_S)
            except TimeoutError:
                return len(players) - 1
            await asyncio.sleep(SETTLE_S)
        return len(players)
    finally:
        for player in players:
            player.cancel()
        await asyncio.gather(*players, return_exceptions=True)


async def _keep_playing(url: str, world: str, admitted: asyncio.Event, watch: Watch) -> None:
    """Play until cancelled."""
    async with connect(url, world=world) as session:
        admitted.set()
        watch.fps = session.world.fps
        async for frame in session:
            _ = frame.picture  # decode it, as a player would
            watch.arrived.append(time.monotonic())


def _compilation(url: str) -> str:
    return str(fetched(f"{url}/readyz")["compilation"])


def _steps(world: str, sessions: list[int]) -> dict[str, Any]:
    """Return the report of `lightcone bench step`, in a process of its own: it sets numbers of threads."""
    command = [sys.executable, str(ROOT / "lightcone.py"), "bench", "step", "--world", world, "--json", "--sessions"]
    done = subprocess.run([*command, *map(str, sessions)], check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@contextlib.contextmanager
def _environment(**variables: str) -> Any:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _text(report: dict[str, Any]) -> str:
    steps = "; ".join(
        f"{row['sessions']} session(s): step {row['step_ms']:.1f} ms, ratio {row['ratio']:.2f}"
        for row in report["step"]["sessions"]
    )
    return (
        f"{report['world']}: ready in {report['ready_s']} s; {report['players_before']} players fit before compiling, "
        f"{report['players_after']} after {report['minutes']} min\n"
        f"frames that one player got meanwhile, by {PERIOD_S} s: {report['kept_median']:.1%} at the median, at least "
        f"{report['kept_least']:.1%}, {report['kept_mean']:.1%} in all\n"
        f"{'; '.join(f'{status} from {at} s' for status, at in report['compilation'].items())}\n{steps}"
    )
