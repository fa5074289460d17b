"""The flag `--threads` of the verbs that compute."""

from __future__ import annotations

import torch

from world.errors import LightconeError


def set_threads(number: int) -> None:
    """Let PyTorch use so many CPU threads. Raises LightconeError below 1."""
    if number < 1:
        raise LightconeError(f"--threads {number}: must be at least 1")
    torch.set_num_threads(number)
