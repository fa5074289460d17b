"""Compile or recompute a transformer's blocks in training. Weights and their names stay the same.

Owns where compiling is possible; PyTorch does the rest.
"""

from __future__ import annotations

import logging
import shutil
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from world.model.transformer import Transformer

logger = logging.getLogger(__name__)

MAX_SHAPES = 64


def compile_blocks(network: Transformer) -> Transformer:
    """Compile the network's blocks at their first call with each shape, and return the network. Without a C++ compiler
    they stay as they are."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        logger.warning("no C++ compiler found: training is not compiled, which takes longer")
        return network
    torch._dynamo.config.recompile_limit = MAX_SHAPES  # all blocks share one function, and each stage has few shapes
    for block in network.blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    return network


def checkpoint_blocks(network: Transformer) -> Transformer:
    """Make the network's blocks keep only their inputs and run again in the backward pass, and return the network.

    Longer rollouts fit into the same memory, for about a third more time. Gradients are the same, since no cache is
    changed in place.
    """
    for block in network.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return network
