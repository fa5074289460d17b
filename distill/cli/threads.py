"""The flag `--threads` of the verbs that compute."""

from __future__ import annotations

import os

import torch

from world.errors import LightconeError


def set_threads(number: int) -> None:
    """Let PyTorch use so many CPU threads. Raises LightconeError below 1 and above the number of cores, where more
    threads only cost time, and thousands end the process."""
    most = os.cpu_count() or 1
    if not 1 <= number <= most:
        raise LightconeError(f"--threads {number}: must be from 1 to {most}, the number of cores")
    torch.set_num_threads(number)
