"""Rollouts in training and in serving agree: the functional cache and the arena generate the same frames."""

import pytest
import torch
from torch import Tensor

from distill.methods.self_rollout import RollingCache, self_rollout
from world import Actions, Rollout
from world.rollout.inputs import action_vectors
from world.testing import CONFIGS, tiny_world


@pytest.mark.parametrize("config_name", sorted(CONFIGS))
def test_a_training_rollout_is_a_served_rollout(config_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(config=config_name)
    config, p = world.transformer.config, world.codec.temporal_patch
    num_chunks = 3 * (config.window_chunks + 1) + 2
    start = world.starts[0]
    generator = torch.Generator().manual_seed(3)
    num_frames = num_chunks * world.chunk_pixel_frames
    buttons = torch.rand(1, num_frames, len(world.card.buttons), generator=generator) < 0.5
    played = Actions(buttons, torch.rand(1, num_frames, len(world.card.axes), generator=generator))

    shape = (1, config.chunk_frames, config.channels, config.height, config.width)
    draws = torch.Generator().manual_seed(4)
    noise = {(chunk, stage): torch.randn(shape, generator=draws) for chunk in range(num_chunks) for stage in range(2)}
    latents = world.encode(start.frames[None])[0]
    with torch.no_grad():
        cache = RollingCache.prefill(world.transformer, config, latents, action_vectors(start.actions, p))
        trained = self_rollout(
            world.transformer,
            cache,
            played.vector().unflatten(1, (-1, p)).flatten(2),
            world.sigmas,
            exit_stage=1,
            generator=torch.Generator().manual_seed(4),
        )

    step = 0

    def same_noise(self: Rollout, states: object, stage: int) -> Tensor:
        return noise[step, stage]

    monkeypatch.setattr(Rollout, "_noise", same_noise)
    rollout = world.start(start.frames[None], start.actions)
    served = []
    for step in range(num_chunks):
        first = step * world.chunk_pixel_frames
        served.append(rollout.step_latents(played.frames(first, first + world.chunk_pixel_frames)))
    torch.testing.assert_close(trained, torch.cat(served, 1), atol=1e-4, rtol=0)
