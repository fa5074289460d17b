"""This machine: its identity, its capabilities, and where caches are stored."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path

import torch

SHORTEST_S = 0.1
"""Shorter intervals tell nothing, because the system counts in hundredths of a second."""


def cache_root() -> Path:
    """Return `$LIGHTCONE_CACHE`, or `lightcone` in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("LIGHTCONE_CACHE") or home / "lightcone")


@cache
def machine() -> list[str]:
    """Return what compiled code and timings depend on: system, CPU, PyTorch."""
    return [platform.platform(), _cpu_model(), str(torch.cpu.get_capabilities()), torch.__version__]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(usable_cores())


def usable_cores() -> set[int]:
    """Return the numbers of the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device | None = None) -> bool:
    """Return whether bf16 matrix products are fast on a device (default: the one that worlds are loaded to): CUDA with
    bf16, or a CPU with AVX512-BF16 or AMX."""
    if (device or default_device()).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class OtherProcesses:
    """How much of the cores that this process may use others take, without those that run at low priority. stat: the
    file in which the kernel counts the cores' time (Linux)."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._before = self._times()

    def cores(self) -> float:
        """Return how many cores they took since the last call; 0 where that is unknown."""
        before, now = self._before, self._times()
        if now is None or before is None or now[0] - before[0] < SHORTEST_S:
            return 0.0
        self._before = now
        return max(0.0, now[1] - before[1]) / (now[0] - before[0])

    def _times(self) -> tuple[float, float] | None:
        """Return the time, and for how many seconds others have used a core."""
        try:
            lines = self._stat.read_text().splitlines()
        except OSError:
            return None
        names, ticks = {f"cpu{core}" for core in usable_cores()}, 0
        for name, *counts in map(str.split, lines):
            if name in names:
                user, _low_priority, system, _idle, _waiting, interrupts, soft_interrupts, stolen, *_ = map(int, counts)
                ticks += user + system + interrupts + soft_interrupts + stolen
        own = os.times()
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system
