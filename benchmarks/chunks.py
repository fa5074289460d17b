"""Chunks generated without a `Rollout`, for benchmarks that replace parts of it. Owns the two kinds of pass of a chunk
and their order, which are those of `world.rollout.rollout`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from world.checkpoint import World
from world.model.schedule import euler_step
from world.rollout.cache import Arena

Passes = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x `b f c h w`, sigma `b f`, actions `b f a`, first chunk `b`) → velocity of all frames."""


def started(world: World, num_sessions: int, *, int8_cache: bool = False) -> tuple[Arena, Tensor, Tensor]:
    """Start sessions from the world's first start. Return their cache, the index `b` of the uncommitted chunk, and that
    chunk `b f c h w`."""
    rollout, start, config = (
        world.rollout(num_sessions, int8_cache=int8_cache),
        world.starts[0],
        world.transformer.config,
    )
    for slot in range(num_sessions):
        rollout.start([slot], start.frames[None], start.actions, [slot])
    last = rollout.snapshot(0, exact=False).history[-config.chunk_frames :].expand(num_sessions, -1, -1, -1, -1)
    pending = torch.full((num_sessions,), config.context_frames // config.chunk_frames - 1)
    return rollout.arena, pending, last


def denoised(world: World, passes: Passes, noise: Tensor, clean: Tensor, actions: Tensor, first: Tensor) -> Tensor:
    """Generate the chunk after `clean` from noise by Euler steps: `b f c h w` each; actions `b 2f a` of both chunks.
    first: index `b` of the clean chunk, which the first pass commits."""
    chunk, levels = noise.shape[1], [float(level) for level in world.sigmas]
    x = noise
    for stage, (level, following) in enumerate(pairwise(levels)):
        sigma = torch.full(x.shape[:2], level)
        if stage == 0:
            both = torch.cat([torch.full(x.shape[:2], world.context_sigma), sigma], dim=1)
            velocity = passes(torch.cat([clean, x], dim=1), both, actions, first)
        else:
            velocity = passes(x, sigma, actions[:, chunk:], first + 1)
        x = euler_step(x, velocity[:, -chunk:].float(), torch.tensor(level), torch.tensor(following))
    return x
