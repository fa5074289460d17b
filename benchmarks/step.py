"""`lightcone bench step`: the time of one step of a world by the number of sessions that share it, and its floor.

Owns the timing of the model alone: generating a chunk and decoding it, in this process, without server or wire. Steps
alternate with their bare matrix products (see `matrix_products`), so that a slow phase of the machine affects both; the
products use as many threads as the step before them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.matrix_products import MatrixProducts
from world.actions import Actions
from world.catalogue import find
from world.checkpoint import World
from world.rollout import Rollout
from world.rollout.step_threads import using_threads
from world.rollout.thread_policy import FIRST_WAIT, TRIAL
from world.runtime.tuning import tuned

WARM_UP_STEPS = FIRST_WAIT + 2 * TRIAL
"""Enough to find the number of threads."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for world, numbers of sessions and length of the measurement."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to measure (default: pong)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8], help="sessions that share a step")
    parser.add_argument("--steps", type=int, default=50, help="timed steps of each (default: 50)")
    parser.add_argument("--threads", type=int, help="CPU threads of the model (default: chosen for each batch size)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measure each number of sessions and print one line for each, or one JSON object."""
    world = tuned(find(args.world), num_threads=args.threads)
    rows = [measure(world, count, args.steps) for count in args.sessions]
    for row in rows:
        row["gain"] = row["frames_per_s"] / rows[0]["frames_per_s"]
        row["matmul_gain"] = rows[0]["matmul_ms"] / row["matmul_ms"] * row["sessions"] / rows[0]["sessions"]
    report = {
        "world": world.card.name,
        "machine": f"{platform.machine()}, {world.device}, {world.dtype}",
        "compiled": world.compiled is not None,
        "sessions": rows,
    }
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    print(f"{report['world']} on {report['machine']}{', compiled' if report['compiled'] else ''}")
    for row in rows:
        print(
            f"{row['sessions']:>3} sessions, {row['threads']} thread{'s' * (row['threads'] > 1)}: "
            f"step {row['step_ms']:.1f} ms (of it decoding {row['decode_ms']:.1f}), "
            f"bare products {row['matmul_ms']:.1f} ms on {row['bytes_mb']:.0f} MB, ratio {row['ratio']:.2f}; "
            f"{row['frames_per_s']:.1f} frames/s together, gain {row['gain']:.2f} of {row['matmul_gain']:.2f}"
        )
    return 0


def measure(world: World, num_sessions: int, num_steps: int) -> dict[str, Any]:
    """Return median milliseconds of a whole step, of its decoding, and of its bare matrix products; the frames per
    second of all sessions together; and the number of threads of most steps, which alone count."""
    rollout = world.rollout(num_sessions)
    start = world.starts[0]
    for slot in range(num_sessions):
        rollout.start([slot], start.frames[None], start.actions, [slot])
    held = Actions.none(num_sessions, 1, len(world.card.buttons), len(world.card.axes))
    products = _recorded_products(world, rollout, held)
    timed = []  # by step: threads; milliseconds of the whole step, of decoding and of the products
    for _ in range(WARM_UP_STEPS + num_steps):
        started = time.perf_counter()
        with rollout.threads.step(num_sessions):
            latents = rollout.step_latents(held)
            _wait(world)
            stepped = time.perf_counter()
            frames = rollout.decode(latents)
            _wait(world)
        ended = time.perf_counter()
        with torch.inference_mode(), using_threads(rollout.threads.last):
            matmul_ms = products.run()
            _wait(world)
        timed.append((rollout.threads.last, (ended - started) * 1e3, (ended - stepped) * 1e3, matmul_ms))
    threads = statistics.mode(number for number, *_ in timed[WARM_UP_STEPS:])
    alike = [times for number, *times in timed[WARM_UP_STEPS:] if number == threads]
    step_ms, decode_ms, matmul_ms = map(statistics.median, zip(*alike, strict=True))
    rate = frames.shape[1] * 1e3 / step_ms
    return {
        "sessions": num_sessions,
        "threads": threads,
        "step_ms": step_ms,
        "decode_ms": decode_ms,
        "matmul_ms": matmul_ms,
        "ratio": step_ms / matmul_ms,
        "bytes_mb": products.bytes / 1e6,
        "frames_per_s": rate * num_sessions,
        "frames_per_s_each": rate,
    }


def _recorded_products(world: World, rollout: Rollout, held: Actions) -> MatrixProducts:
    """Record the matrix products of one step without compiled code, which hides them; they are the same."""
    compiled, rings = world.compiled, rollout.arena.rings
    world.compiled = None
    rollout.arena.rings = replace(rings, kernel_choice=replace(rings.kernel_choice, native_attention=False))
    products = MatrixProducts()
    with products:
        rollout.step(held)
    world.compiled, rollout.arena.rings = compiled, rings
    return products


def _wait(world: World) -> None:
    """Wait until the device has finished: CUDA runs asynchronously."""
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
