"""The same starts and actions, by slot and step, for rollouts that are compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tests.world.definitions import context, random_actions
from world import Actions, Rollout, World


def started(world: World, slots: list[int], **options: Any) -> Rollout:
    """Return a rollout of four slots with `options`, of which these are started."""
    rollout = Rollout(world, 4, **options)
    contexts = [context(world, seed=slot) for slot in slots]
    frames, actions = torch.cat([f for f, _ in contexts]), Actions.cat([a for _, a in contexts])
    rollout.start(slots, frames, actions, [100 + slot for slot in slots])
    return rollout


def stepped(rollout: Rollout, world: World, slots: list[int], numbers: Iterable[int]) -> Tensor:
    """Take the steps with these numbers and return their latents `b steps f c h w`."""
    latents = [
        rollout.step_latents(Actions.cat([random_actions(world, 1, 1000 * slot + n) for slot in slots]), slots)
        for n in numbers
    ]
    return torch.stack(latents, 1)


def rolled_out(world: World, slots: list[int], num_steps: int, **options: Any) -> tuple[Rollout, Tensor]:
    """Start a rollout and take `num_steps` steps."""
    rollout = started(world, slots, **options)
    return rollout, stepped(rollout, world, slots, range(num_steps))
