"""This machine: its identity, its capabilities, and where caches are stored."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch


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
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device | None = None) -> bool:
    """Return whether bf16 matrix products are fast on a device (default: the one that worlds are loaded to): CUDA with
    bf16, or a CPU with AVX512-BF16 or AMX."""
    if (device or default_device()).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
