"""Keys and values in 8 bit: less memory, nearly the same rollout, by every path; state is still an exact copy."""

from __future__ import annotations

import torch

from kernels.dispatch import through_triton
from tests.world.definitions import assert_within, random_actions
from tests.world.rollouts import started, stepped
from world import World
from world.rollout.cache import Arena


def test_memory_is_as_documented(world: World) -> None:
    config = world.transformer.config
    of_8, of_16 = (Arena(config, 3, dtype=torch.bfloat16, int8=int8).num_bytes for int8 in (True, False))
    assert of_8 / of_16 == (config.head_dim + 4) / (2 * config.head_dim)


def test_int8_rollouts_are_nearly_equal_by_every_path(short_world: World) -> None:
    world = short_world
    num_steps = world.transformer.config.window_chunks + 2  # past the ring's wrap
    for slots in ([1, 2], [3, 0]):
        numbers = range(num_steps)
        exact = stepped(started(world, slots, int8_cache=False), world, slots, numbers)
        plain = started(world, slots, int8_cache=True)
        ours = stepped(plain, world, slots, numbers)
        assert not torch.equal(ours, exact)
        assert_within(ours, exact, 0.1)
    with through_triton():
        fused = started(world, slots, int8_cache=True)
        assert_within(stepped(fused, world, slots, numbers), ours, 0.05)
    for stored, other in zip(plain.arena.tensors[:2], fused.arena.tensors[:2], strict=True):
        assert stored.dtype is torch.int8
        assert (stored.int() - other.int()).abs().float().mean() < 0.5, "at the same positions"


def test_snapshots_and_rewinds_are_exact(world: World) -> None:
    rollout = started(world, [1], int8_cache=True, timeline_chunks=8)
    chunk = world.transformer.config.chunk_frames
    stepped(rollout, world, [1], range(3))
    state = rollout.snapshot(1)
    after = stepped(rollout, world, [1], range(3, 6))
    rollout.restore(2, state)
    latents = [rollout.step_latents(random_actions(world, 1, 1000 + n), [2]) for n in range(3, 6)]
    assert torch.equal(torch.stack(latents, 1), after)
    rollout.rewind(1, 3 * chunk)
    assert torch.equal(stepped(rollout, world, [1], range(3, 6)), after)
