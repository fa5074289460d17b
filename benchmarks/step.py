"""`lightcone bench step`: how long one step of a world takes, by the number of sessions that share it.

Owns the timing of the model alone: generating a chunk and decoding it, in this process, without server or wire.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from typing import Any

import torch

from world.actions import Actions
from world.catalogue import find
from world.world import World

WARM_UP_STEPS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """World, numbers of sessions and length of the measurement."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to measure (default: pong)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8], help="sessions that share a step")
    parser.add_argument("--steps", type=int, default=50, help="timed steps of each (default: 50)")
    parser.add_argument("--threads", type=int, help="CPU threads of the model (default: the machine's choice)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measures each number of sessions and prints one line, or one JSON object, for each."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    world = World.load(find(args.world))
    rows = [measure(world, count, args.steps) for count in args.sessions]
    report = {
        "world": world.card.name,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {world.device}, {world.dtype}",
        "sessions": rows,
    }
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    print(f"{report['world']} on {report['machine']}")
    for row in rows:
        print(
            f"{row['sessions']:>3} sessions: step {row['step_ms_p50']:.1f} ms, decode {row['decode_ms_p50']:.1f} ms, "
            f"{row['frames_per_s_each']:.1f} frames/s each, {row['frames_per_s_total']:.1f} together"
        )
    return 0


def measure(world: World, num_sessions: int, num_steps: int) -> dict[str, Any]:
    """Median step and decode time in milliseconds, and the frame rates that follow from their sum."""
    rollout = world.rollout(num_sessions)
    start = world.starts[0]
    for slot in range(num_sessions):
        rollout.start([slot], start.frames[None], start.actions, [slot])
    held = Actions.none(num_sessions, 1, len(world.card.buttons), len(world.card.axes))
    steps_ms, decodes_ms = [], []
    for _ in range(WARM_UP_STEPS + num_steps):
        begun = time.perf_counter()
        latents = rollout.step_latents(held)
        _wait(world)
        stepped = time.perf_counter()
        frames = rollout.decode(latents)
        _wait(world)
        steps_ms.append((stepped - begun) * 1e3)
        decodes_ms.append((time.perf_counter() - stepped) * 1e3)
    step_ms, decode_ms = (statistics.median(values[WARM_UP_STEPS:]) for values in (steps_ms, decodes_ms))
    rate = frames.shape[1] * 1e3 / (step_ms + decode_ms)
    return {
        "sessions": num_sessions,
        "step_ms_p50": step_ms,
        "decode_ms_p50": decode_ms,
        "frames_per_s_each": rate,
        "frames_per_s_total": rate * num_sessions,
    }


def _wait(world: World) -> None:
    """Until the device has done what it was told: CUDA runs behind the program."""
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
