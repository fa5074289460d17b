"""What is compiled in the background, and in which order. Owns the choice alone: starts no process, loads no code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from world import World
from world.rollout.thread_policy import preferred_for
from world.runtime.native_attention import can_have_native_attention, has_native_attention
from world.runtime.packages import compiled_sizes

ATTENTION = 0
"""The "batch size" of the part that is not about one: attention."""
FEW = 2
"""Up to this batch size, steps are compiled for every number of threads that they may choose from; above it, for the
number that they begin with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One thing to compile for the world that is served as `world` from `folder`: the network for `batch` sessions and
    `num_threads` threads, or (`ATTENTION`) the machine code of attention, which all worlds in this dtype share.

    rank: parts of a lower rank are compiled first.
    """

    world: str
    folder: Path
    dtype: str
    batch: int
    num_threads: int
    rank: int = 0

    @property
    def title(self) -> str:
        """Return what is compiled, for the log."""
        if self.batch == ATTENTION:
            return "attention"
        plural = "s" * (self.num_threads > 1)
        return f"{self.world} for {self.batch} at once, {self.num_threads} thread{plural}"


def sizes_to_compile(max_batch: int) -> list[int]:
    """Return the batch sizes that are worth compiling: powers of two, and the largest that can occur. The sizes between
    are padded, which takes less time than running uncompiled."""
    powers = [2**power for power in range(max_batch.bit_length()) if 2**power < max_batch]
    return [*powers, max_batch]


def can_be_compiled(world: World) -> bool:
    """Return whether another process can compile for this world: it needs the folder, and a GPU has other means."""
    return world.folder is not None and world.device.type == "cpu"


def missing_parts(worlds: Mapping[str, World], max_batch: int, num_threads: int) -> list[Part]:
    """Return what this machine lacks for these worlds. num_threads: the most that steps use."""
    parts: list[Part] = []
    for name, world in worlds.items():
        if world.folder is None or not can_be_compiled(world):
            continue
        dtype = str(world.dtype).removeprefix("torch.")
        lacks_attention = can_have_native_attention(world.dtype) and not has_native_attention(world.dtype)
        if lacks_attention and not any(part.batch == ATTENTION for part in parts):
            parts.append(Part(world=name, folder=world.folder, dtype=dtype, batch=ATTENTION, num_threads=0))
        for batch in sizes_to_compile(max_batch):
            for rank, number in enumerate(_numbers_of_threads(world, batch, num_threads)):
                if batch not in compiled_sizes(world.transformer, number):
                    part = Part(
                        world=name, folder=world.folder, dtype=dtype, batch=batch, num_threads=number, rank=min(rank, 1)
                    )
                    parts.append(part)
    return parts


def next_part(parts: Sequence[Part], order: Sequence[str], played: Collection[str]) -> Part:
    """Return what to compile next: attention, then worlds that are played now, then by the order of the worlds."""
    return min(
        parts,
        key=lambda part: (
            part.batch != ATTENTION,
            part.world not in played,
            part.rank,
            order.index(part.world),
            part.batch,
        ),
    )


def _numbers_of_threads(world: World, batch: int, most: int) -> list[int]:
    """Return the numbers of threads that steps of `batch` sessions are compiled for, the one they begin with first."""
    first = preferred_for(batch, world.threads.preferred) or most
    others = [number for number in world.threads.choices(most) if number != first]
    return [first, *(others if batch <= FEW else ())]
