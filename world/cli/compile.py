"""`lightcone compile`. Owns what is printed; `world.runtime` does the work."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from world.catalogue import find
from world.runtime.ahead_of_time import compile_transformer
from world.runtime.native_attention import make_native_attention
from world.runtime.tuning import tuned


def run(args: argparse.Namespace) -> int:
    """Compile what is missing and print the folder that holds the result."""
    started = time.perf_counter()
    world = tuned(find(args.world), num_threads=args.threads)  # sets the number of threads to compile for
    folder = compile_transformer(world.transformer, args.batches, lambda part: print(part, file=sys.stderr))
    if make_native_attention(world.dtype):
        print("attention", file=sys.stderr)
    seconds = time.perf_counter() - started
    print(f"compiled for {torch.get_num_threads()} threads in {seconds:.0f} s: {folder}; used from the next start on")
    return 0
