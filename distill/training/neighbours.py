"""Warn once if other processes take the cores that training uses. Owns that warning. The number of threads stays as it
is, because another number rounds differently and an interrupted run would no longer continue exactly.

Threads wait for each other at every operation, so a process that occupies one of their cores makes every step several
times longer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import torch

from world.device import OtherProcesses, usable_cores

logger = logging.getLogger(__name__)

LOOK_S, LOOKS = 30.0, 3
"""Seconds over which others' use of the cores is averaged, and how many times in a row it must be too much: training's
own compiler, which counts as another process, takes the cores for less than a minute."""
MOST_TAKEN = 0.5
"""Cores that others may take of those that training's threads need."""


@contextmanager
def watched_neighbours() -> Iterator[None]:
    """While the block runs, check every `LOOK_S` seconds whether other processes take its cores, and warn once when
    `LOOKS` checks in a row found that they do."""
    num_threads, ended = torch.get_num_threads(), Event()

    def watch() -> None:
        others, num_cores, num_busy = OtherProcesses(), len(usable_cores()), 0
        while not ended.wait(LOOK_S):
            taken = others.cores()
            num_busy = num_busy + 1 if taken > num_cores - num_threads + MOST_TAKEN else 0
            if num_busy == LOOKS:
                fewer = max(1, min(num_threads - 1, round(num_cores - taken)))
                logger.warning(
                    "other processes take %.1f of %d cores, and each operation of training waits for the slowest of "
                    "its %d threads; if they stay, stop and continue with `--threads %d` (torch.set_num_threads)",
                    taken, num_cores, num_threads, fewer,
                )  # fmt: skip
                return

    if num_threads > 1:
        Thread(target=watch, name="neighbours", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
