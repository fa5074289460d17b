"""What is compiled in the background, and in which order. Owns the choice alone: starts no process, loads no code."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from world import World
from world.runtime.native_attention import can_have_native_attention, has_native_attention
from world.runtime.packages import compiled_sizes

ATTENTION = 0
"""The "batch size" of the part that is not about one: attention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One thing to compile for the world that is served as `world` from `folder`: the network for `batch` sessions,
    or (`ATTENTION`) the machine code of attention, which all worlds in this dtype share."""

    world: str
    folder: Path
    dtype: str
    batch: int

    @property
    def title(self) -> str:
        """Return what is compiled, for the log."""
        return "attention" if self.batch == ATTENTION else f"{self.world} for {self.batch} at once"


def sizes_to_compile(max_batch: int) -> list[int]:
    """Return the batch sizes that are worth compiling: powers of two, and the largest that can occur. The sizes between
    are padded, which takes less time than running uncompiled."""
    powers = [2**power for power in range(max_batch.bit_length()) if 2**power < max_batch]
    return [*powers, max_batch]


def can_be_compiled(world: World) -> bool:
    """Return whether another process can compile for this world: it needs the folder and POSIX's processes, and a GPU
    has other means."""
    return world.folder is not None and world.device.type == "cpu" and os.name == "posix"


def missing_parts(worlds: Mapping[str, World], max_batch: int) -> list[Part]:
    """Return what this machine lacks for these worlds."""
    parts: list[Part] = []
    for name, world in worlds.items():
        if world.folder is None or not can_be_compiled(world):
            continue
        dtype = str(world.dtype).removeprefix("torch.")
        lacks_attention = can_have_native_attention(world.dtype) and not has_native_attention(world.dtype)
        if lacks_attention and not any(part.batch == ATTENTION for part in parts):
            parts.append(Part(world=name, folder=world.folder, dtype=dtype, batch=ATTENTION))
        missing = (size for size in sizes_to_compile(max_batch) if size not in compiled_sizes(world.transformer))
        parts += [Part(world=name, folder=world.folder, dtype=dtype, batch=size) for size in missing]
    return parts


def unused_parts(worlds: Mapping[str, World], max_batch: int) -> list[Part]:
    """Return what this machine has and these worlds do not use, because they were measured as faster without it: on a
    machine that was busy then, that may be wrong."""
    parts: list[Part] = []
    for name, world in worlds.items():
        if world.folder is None:
            continue
        dtype = str(world.dtype).removeprefix("torch.")
        part = Part(world=name, folder=world.folder, dtype=dtype, batch=ATTENTION)
        lacks_attention = has_native_attention(world.dtype) and not world.kernel_choice.native_attention
        if lacks_attention and not any(part.batch == ATTENTION for part in parts):
            parts.append(part)
        in_use = world.compiled.fits if world.compiled is not None else lambda *_: False
        sizes = (size for size in compiled_sizes(world.transformer) if size <= max_batch and not in_use(size, 1))
        parts += [replace(part, batch=size) for size in sizes]
    return parts


def next_part(parts: Sequence[Part], order: Sequence[str], played: Collection[str]) -> Part:
    """Return what to compile next: attention, then worlds that are played now, then by the order of the worlds."""
    return min(
        parts,
        key=lambda part: (
            part.batch != ATTENTION,
            part.world not in played,
            order.index(part.world),
            part.batch,
        ),
    )
