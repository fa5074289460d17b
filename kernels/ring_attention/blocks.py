"""Block sizes of ring attention by chip. Owns the table; `python -m kernels.ahead_of_time` prints what each uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Blocks:
    """Block sizes of a launch. queries, keys: rows of a tile. warps, stages: launch options."""

    queries: int
    keys: int
    warps: int
    stages: int


HOPPER = Blocks(queries=128, keys=64, warps=8, stages=2)
BLACKWELL = Blocks(queries=128, keys=64, warps=8, stages=3)
OTHERS = Blocks(queries=64, keys=64, warps=8, stages=2)
OTHERS_INT8 = Blocks(queries=64, keys=32, warps=8, stages=2)
INTERPRETED = Blocks(queries=32, keys=32, warps=1, stages=1)


def blocks_of(capability: tuple[int, int], *, int8: bool) -> Blocks:
    """Return the largest blocks without register spills: data-centre chips can keep more of a tile in shared and tensor
    memory."""
    if capability[0] in (9, 10):
        return HOPPER if capability[0] == 9 else BLACKWELL
    return OTHERS_INT8 if int8 else OTHERS


def blocks_for(device: torch.device, *, int8: bool) -> Blocks:
    if device.type != "cuda":
        return INTERPRETED
    return blocks_of(torch.cuda.get_device_capability(device), int8=int8)
