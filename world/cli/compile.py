"""`lightcone compile`. Owns the flags; the work is `world.runtime.ahead_of_time`'s."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from world.catalogue import find
from world.runtime.ahead_of_time import BATCHES, compile_transformer
from world.runtime.native_attention import make_native_attention
from world.runtime.tuning import tuned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """World, sizes of a batch, threads."""
    parser.add_argument("world", nargs="?", default="pong", metavar="NAME|PATH", help="which world (default: pong)")
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=list(BATCHES),
        metavar="N",
        help="numbers of players whose steps go together (default: 1 2 4 8); others go on uncompiled",
    )
    parser.add_argument("--threads", type=int, help="CPU threads that the code is for (default: the fastest here)")


def run(args: argparse.Namespace) -> int:
    """Compiles what is missing, and says where it is kept."""
    started = time.perf_counter()
    path = find(args.world)
    world = tuned(path, num_threads=args.threads)  # also the number of threads
    folder = compile_transformer(world.transformer, args.batches, lambda part: print(part, file=sys.stderr))
    if make_native_attention(world.dtype):
        print("attention", file=sys.stderr)
    took = time.perf_counter() - started
    print(f"compiled for {torch.get_num_threads()} threads in {took:.0f} s: {folder}; used from the next start on")
    return 0
