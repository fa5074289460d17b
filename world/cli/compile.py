"""`lightcone compile`. Owns what is printed; `world.runtime` does the work."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from world.catalogue import find
from world.rollout.step_threads import using_threads
from world.rollout.thread_policy import preferred_for
from world.runtime.ahead_of_time import check_batches, compile_transformer
from world.runtime.native_attention import make_native_attention
from world.runtime.tuning import tuned


def run(args: argparse.Namespace) -> int:
    """Compile what is missing, each batch size for the number of threads that its steps begin with, and print the
    folders that hold the result."""
    check_batches(args.batches)
    started = time.perf_counter()
    world = tuned(find(args.world), num_threads=args.threads)
    if make_native_attention(world.dtype):
        _report("attention")
    folders = {}
    for batch in args.batches:
        number = preferred_for(batch, world.threads.preferred) or torch.get_num_threads()
        with using_threads(number):
            folders[number] = compile_transformer(world.transformer, [batch], _report)
    seconds = time.perf_counter() - started
    for number, folder in sorted(folders.items()):
        print(f"for {number} thread{'s' * (number > 1)}: {folder}")
    print(f"compiled in {seconds:.0f} s; used from the next start on")
    return 0


def _report(part: str) -> None:
    print(part, file=sys.stderr)
