"""The arguments of `lightcone compile`. Owns flags, defaults and help; loads no torch."""

from __future__ import annotations

import argparse

BATCHES = (1, 2, 4, 8)
"""Batch sizes that are compiled by default."""


def add_compile_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the world, the batch sizes and the number of threads."""
    parser.add_argument("world", nargs="?", default="pong", metavar="NAME|PATH", help="which world (default: pong)")
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=list(BATCHES),
        metavar="N",
        help="batch sizes (players stepped together) to compile; others run uncompiled "
        f"(default: {' '.join(map(str, BATCHES))})",
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads to measure dtype and attention with; the code runs with any",
    )
