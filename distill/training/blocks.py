"""Compiled or recomputed blocks for training. Owns when that is possible; PyTorch does it. Weights and their names stay
the same."""

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
    """The same network, whose blocks are compiled when they are first called with a shape; without a C++ compiler they
    stay as they are."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        logger.warning("no C++ compiler found: training runs uncompiled, which takes longer")
        return network
    torch._dynamo.config.recompile_limit = MAX_SHAPES  # all blocks share one function, each stage has few shapes
    for block in network.blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    return network


def checkpoint_blocks(network: Transformer) -> Transformer:
    """The same network, whose blocks keep only their inputs for the backward pass and run again in it: longer rollouts
    in the same memory for about a third more time. Gradients are the same, since no cache changes in place."""
    for block in network.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return network
