"""`lightcone bench NAME`. Owns the list of benchmarks, each a module with `add_arguments(parser)` and `run(args)`."""

from __future__ import annotations

import argparse
from importlib import import_module

BENCHMARKS = {
    "caches": "the ring of keys and values beside the common ways to keep a cache, with equal weights",
    "distill": "every distillation method against its teacher: quality, evaluations, wall-clock, cost of training",
    "first-start": "a server's first minutes with nothing compiled: who fits, what players lose, what steps take then",
    "int8": "8 bit in the cache and in linear layers: memory, time, and single steps' distance from float32",
    "kernels": "the fused kernels beside their floors: bytes, operations, and on a GPU how near they come",
    "play": "frames per second and action-to-frame latency of a served world: a real server, a real client",
    "serve": "many players on one server: frame rates, latencies, fairness, memory, and how many it carries",
    "speedup": "the student's compute per generated second against its teacher's, in one run",
    "step": "how long one step of a world takes, by the number of sessions that share it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name; what follows it is read by `run`, so that only the chosen benchmark is imported."""
    listed = "".join(f"\n  {name:<13}{text}" for name, text in BENCHMARKS.items())
    parser.epilog = f"benchmarks (`lightcone bench NAME --help` explains one):{listed}\n\n{parser.epilog or ''}"
    parser.add_argument("benchmark", metavar="NAME", choices=tuple(BENCHMARKS), help=", ".join(BENCHMARKS))
    parser.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="the benchmark's own arguments")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen benchmark and returns its exit code."""
    name: str = args.benchmark
    module = import_module(f"benchmarks.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"lightcone bench {name}", description=f"Measures {BENCHMARKS[name]}.")
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.rest)))
