"""The two ways to go from one noise level to the next."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.world.definitions import assert_within, context, random_actions
from world import Actions, World
from world.model.patterns import Banded
from world.model.transformer import Conditioning
from world.rollout.inputs import noise_seed
from world.testing import tiny_world


def step(world: World, renoise: bool, num_steps: int) -> Tensor:
    world.sampler = replace(world.sampler, renoise=renoise, num_steps=num_steps)
    frames, actions = context(world, 0)
    return world.start(frames, actions, seed=3).step_latents(random_actions(world, 1, 1))


@pytest.mark.parametrize("config", ["pixel", "wan"])
def test_samplers_agree_with_one_step_and_differ_with_more(config: str) -> None:
    world = tiny_world(config=config)
    assert_within(step(world, True, 1), step(world, False, 1), 1e-6)
    assert (step(world, True, 3) - step(world, False, 3)).abs().max() > 1e-3


def test_euler_steps_follow_the_networks_velocity() -> None:
    """dx/dsigma = velocity, integrated without the cache by full forward passes."""
    world = tiny_world()
    config, levels = world.transformer.config, world.sigmas
    frames, actions = context(world, 0)
    latents, _ = world.encode(frames)
    new_action = random_actions(world, 1, 1)
    vectors = Actions.cat([actions, new_action], 1).vector()
    generator = torch.Generator().manual_seed(noise_seed(3, latents.shape[1], 0))
    expected_x = torch.randn((1, 1, *latents.shape[2:]), generator=generator)
    level = torch.zeros(1, latents.shape[1] + 1)
    for sigma, sigma_next in pairwise(levels):
        level[:, -1] = sigma
        clip = torch.cat([latents, expected_x], 1)
        network = world.transformer
        with torch.no_grad():
            velocity = network(
                clip, level, Conditioning(actions=vectors), pattern=Banded(config, tuple(range(clip.shape[1])))
            ).prediction[:, -1:]
        expected_x = expected_x + float(sigma_next - sigma) * velocity
    assert_within(step(world, False, 2), expected_x, 1e-5)
