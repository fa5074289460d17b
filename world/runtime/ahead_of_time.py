"""The network between its attentions, compiled ahead of time for this machine by PyTorch's AOTInductor. Owns the passes
through the compiled segments (`world.runtime.segments`), and which passes they fit.

Attention and cache writes stay in the attention pattern; compiled with the rest, they became slower.
`world.runtime.packages` stores the machine code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from world.errors import CompilationError
from world.model.rotary import Angles
from world.model.transformer import Conditioning, Output, Transformer
from world.rollout.cache import ArenaPattern
from world.runtime.packages import (
    Packages,
    check_compiler,
    compile_packages,
    compiled_sizes,
    folder_of,
    load_packages,
    weights_of,
)
from world.runtime.segments import Begin, Between, End, blocks_of

BATCHES = (1, 2, 4, 8)
"""Batch sizes compiled by default; other sizes run uncompiled, or padded to one of these."""


class CompiledTransformer:
    """The same network as `transformer`, for passes over an arena without text. Runs packages on the transformer's
    weights, which it shares. Not thread-safe."""

    def __init__(self, transformer: Transformer) -> None:
        self.transformer = transformer
        self._begin = weights_of(Begin(transformer))
        self._between = [weights_of(Between(before, after)) for before, after in pairwise(blocks_of(transformer))]
        self._end = weights_of(End(transformer))
        self._packages: dict[int, Packages] = {}

    @property
    def sizes(self) -> list[int]:
        """Return the batch sizes for which there is code."""
        return sorted(self._packages)

    def add(self, batch: int, packages: Packages) -> None:
        """Use these packages from the next pass on."""
        self._packages[batch] = packages

    def remove(self, batch: int) -> None:
        """Use the packages of this size no longer."""
        self._packages.pop(batch, None)

    def load(self) -> None:
        """Add all complete sets of packages that this machine has."""
        for batch in compiled_sizes(self.transformer):
            if (packages := load_packages(self.transformer, batch)) is not None:
                self.add(batch, packages)

    def fits(self, batch: int, num_chunks: int) -> bool:
        """Return whether there is code for this batch size and number of chunks."""
        return num_chunks in self._packages.get(batch, ())

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, *, pattern: ArenaPattern) -> Output:
        """Call the network with actions; all inputs must be contiguous. Raises KeyError if no package fits."""
        assert cond.actions is not None
        packages = self._packages[x.shape[0]][len(pattern.rows)]
        self.transformer.forward_calls += 1
        positions = pattern.positions(x.shape[0], x.shape[1], x.device)
        turns = [_turn(self.transformer.rotary(positions.frames))[:, :, None, None]]
        if positions.sink is not None:
            turns.append(_turn(self.transformer.rotary(positions.sink))[:, :, None])
        tokens, embedding, modulation, *heads = packages["begin"]([x, sigma, cond.actions, *turns, *self._begin])
        for layer, weights in enumerate(self._between):
            attended = _attended(pattern, layer, heads)
            tokens, *heads = packages["between"]([tokens, attended, modulation, *turns, *weights])
        attended = _attended(pattern, len(self._between), heads)
        (velocity,) = packages["end"]([tokens, attended, modulation, embedding, x, *self._end])
        return Output(velocity, [], {})


def _turn(angles: Angles) -> Tensor:
    return torch.complex(angles.cos, angles.sin)


def _attended(pattern: ArenaPattern, layer: int, heads: Sequence[Tensor]) -> Tensor:
    q, k, v, *sink = (head.transpose(1, 2) for head in heads)
    return pattern.attend_rotated(layer, q, k, sink[0] if sink else None, v).contiguous()


def compiled_transformer(transformer: Transformer) -> CompiledTransformer | None:
    """Return the compiled network if this machine has packages that fit, else None."""
    compiled = CompiledTransformer(transformer)
    compiled.load()
    return compiled if compiled.sizes else None


def fitting_packages(transformer: Transformer) -> list[str]:
    """Return the names of this machine's packages for the network."""
    return sorted(path.name for path in folder_of(transformer).glob("*.pt2"))


def check_batches(batches: Sequence[int]) -> None:
    """Raise CompilationError unless these are batch sizes."""
    if not batches or min(batches) < 1:
        raise CompilationError(f"batches {list(batches)}: give one or more sizes, each at least 1")


def compile_transformer(
    transformer: Transformer, batches: Sequence[int] = BATCHES, report: Callable[[str], None] = lambda _: None
) -> Path:
    """Compile the missing packages and return their folder. Takes minutes; finished packages are kept if it is
    interrupted. Raises CompilationError if this machine cannot compile."""
    check_batches(batches)
    if transformer.patch_in.weight.device.type != "cpu":
        raise CompilationError(
            "passes are compiled for CPUs only; on a GPU they are captured as CUDA graphs automatically"
        )
    check_compiler()
    compile_packages(transformer, batches, report)
    return folder_of(transformer)
