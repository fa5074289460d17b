"""The ring's norm and rotation of raw queries, keys and values: eager, and compiled as in a world's packages. Owns both
for `caches`, which times them separately from the rest of a package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from world.model.block import Block
from world.model.patterns import Rotation
from world.runtime.packages import compile_module, loaded, weights_of
from world.runtime.segments import heads_of

Heads = Callable[[Tensor, Rotation], Sequence[Tensor]]
"""(raw `b l 3 n d`, rotation) → normalised and rotated queries and keys, and values, `b l n d`."""


def eager_heads(qkv: Tensor, rotation: Rotation) -> Sequence[Tensor]:
    """Normalise and rotate with PyTorch's operations."""
    q, k, _ = rotation.rotate(qkv)
    return q, k, qkv[:, :, 2]


def compiled_heads(block: Block, qkv: Tensor, rotation: Rotation) -> Heads:
    """Compile the operation for inputs of this shape and this rotation."""
    rotate = _Rotate(block)
    turn = torch.complex(rotation.angles.cos, rotation.angles.sin)[:, :, None, None]
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "heads.pt2"
        compile_module(rotate, [qkv.clone(), turn], package)
        run = loaded(package)
    weights = weights_of(rotate)

    def heads(qkv: Tensor, _: Rotation) -> Sequence[Tensor]:
        return [head.transpose(1, 2) for head in run([qkv, turn, *weights])]

    return heads


class _Rotate(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, qkv: Tensor, turn: Tensor) -> tuple[Tensor, ...]:
        return heads_of(self.block, qkv, (turn,))
