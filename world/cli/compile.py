"""`lightcone compile`. Owns what is printed; `world.runtime` does the work."""

from __future__ import annotations

import argparse
import sys
import time

from world.catalogue import find
from world.runtime.ahead_of_time import check_batches, compile_transformer
from world.runtime.native_attention import make_native_attention
from world.runtime.tuning import tuned


def run(args: argparse.Namespace) -> int:
    """Compile what is missing and print the folder that holds the result."""
    check_batches(args.batches)
    started = time.perf_counter()
    world = tuned(find(args.world), num_threads=args.threads)
    if make_native_attention(world.dtype):
        _report("attention")
    folder = compile_transformer(world.transformer, args.batches, _report)
    seconds = time.perf_counter() - started
    print(f"compiled in {seconds:.0f} s: {folder}; used from the next start on")
    return 0


def _report(part: str) -> None:
    print(part, file=sys.stderr)
