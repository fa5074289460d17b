"""Which world a stored state belongs to, as a digest. Owns what a state depends on; knows no sessions."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor

from world import World
from world.format_1 import former_repr

MAX_VALUES = 2**16
"""How many values of one tensor of the student are read: training changes nearly all, and a student may be large."""


def fingerprint(world: World) -> str:
    """Return a digest that differs where a state cannot be continued: of the shapes, the names of buttons, the axes,
    the codec's weights, which say what latents mean, and the student's, which say what K/V mean."""
    digest = sha256(former_fingerprint(world).encode())
    digest.update(repr([(axis.name, axis.low, axis.high) for axis in world.card.axes]).encode())
    for name, value in world.transformer.state_dict().items():
        digest.update(name.encode() + _content(_some(value)))
    return digest.hexdigest()


def former_fingerprint(world: World) -> str:
    """Return the digest that former releases wrote: without the axes and the student."""
    configs = (world.codec.config, world.transformer.config, [button.name for button in world.card.buttons])
    digest = sha256(former_repr(configs).encode())
    for value in world.codec.state_dict().values():
        digest.update(_content(value))
    return digest.hexdigest()


def _some(value: Tensor) -> Tensor:
    """Return at most `MAX_VALUES` values, evenly spaced."""
    flat = value.detach().flatten()
    return flat[:: -(-flat.numel() // MAX_VALUES) or 1]


def _content(value: Tensor) -> bytes:
    """Return the values as bytes that are the same whether a world plays in 16 or 32 bits."""
    rounded = value.detach().cpu().to(torch.bfloat16).view(torch.int16)
    return rounded.contiguous().numpy().tobytes()
