"""Invariant 4: a session in a batch equals the session alone."""

import pytest
import torch
from torch import Tensor

from tests.world.definitions import assert_within, context, random_actions
from world import Actions, Rollout, RolloutState, World
from world.testing import tiny_world

SLOT_SETS = [[1, 2, 3], [4, 0, 2]]
"""Adjacent slots, which the arena reads as a view, and scattered ones, which it copies."""


def _start(rollout: Rollout, slots: list[int]) -> None:
    """Start slots; the session of slot s has context s and seed 100 + s in any row."""
    contexts = [context(rollout.model, seed=slot) for slot in slots]
    frames, actions = torch.cat([f for f, _ in contexts]), Actions.cat([a for _, a in contexts])
    rollout.start(slots, frames, actions, [100 + slot for slot in slots])


def _actions(world: World, slots: list[int], step: int) -> Actions:
    return Actions.cat([random_actions(world, 1, 1000 * slot + step) for slot in slots])


def _alone(world: World, slot: int, num_steps: int) -> Tensor:
    rollout = world.rollout(5)
    _start(rollout, [slot])
    return torch.stack([rollout.step_latents(_actions(world, [slot], step), [slot])[0] for step in range(num_steps)])


def _num_steps(world: World) -> int:
    """Return enough steps for three wraps of the ring."""
    return 3 * (world.transformer.config.window_chunks + 1) + 2


@pytest.mark.parametrize("slots", SLOT_SETS, ids=str)
def test_batched_sessions_equal_sessions_alone(world: World, slots: list[int]) -> None:
    rollout, num_steps = world.rollout(5), _num_steps(world)
    _start(rollout, slots)
    together = torch.stack([rollout.step_latents(_actions(world, slots, step), slots) for step in range(num_steps)], 1)
    for row, slot in enumerate(slots):
        assert_within(together[row], _alone(world, slot, num_steps), 1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_frames_of_batched_sessions_equal_frames_alone(world: World) -> None:
    """Also decoding, since every slot has its own codec state. One grey level of rounding is allowed."""
    slots, num_steps = [4, 0, 2], 3
    rollout = world.rollout(5)
    _start(rollout, slots)
    together = torch.stack([rollout.step(_actions(world, slots, step), slots) for step in range(num_steps)], 1)
    assert together.shape[2:] == (world.chunk_pixel_frames, world.card.height, world.card.width, 3)
    for row, slot in enumerate(slots):
        alone = world.rollout(5)
        _start(alone, [slot])
        frames = torch.stack([alone.step(_actions(world, [slot], step))[0] for step in range(num_steps)])
        assert (together[row].int() - frames.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])


def test_sessions_may_be_at_different_frames_and_step_unevenly(world: World) -> None:
    rollout, num_steps = world.rollout(3), _num_steps(world)
    _start(rollout, [2])
    generated: dict[int, list[Tensor]] = {0: [], 2: []}

    def step(slots: list[int]) -> None:
        actions = Actions.cat([_actions(world, [slot], len(generated[slot])) for slot in slots])
        for slot, latents in zip(slots, rollout.step_latents(actions, slots), strict=True):
            generated[slot].append(latents)

    for _ in range(4):
        step([2])
    _start(rollout, [0])
    while len(generated[0]) < num_steps:
        step([0, 2] if len(generated[0]) % 3 else [0])
    for slot, latents in generated.items():
        assert rollout.frame_index(slot) == len(latents) * world.transformer.config.chunk_frames
        assert_within(torch.stack(latents), _alone(world, slot, len(latents)), 1e-4)


def test_the_order_of_slots_is_the_order_of_rows(world: World) -> None:
    results = []
    for slots in ([0, 1, 2], [2, 0, 1]):
        rollout = world.rollout(3)
        _start(rollout, [0, 1, 2])
        latents = rollout.step_latents(_actions(world, slots, 0), slots)
        results.append({slot: latents[row] for row, slot in enumerate(slots)})
    for slot in range(3):
        assert_within(results[0][slot], results[1][slot], 1e-4)


@pytest.mark.parametrize("slots", [[1, 2], [3, 1]], ids=str)
def test_other_slots_neither_affect_a_step_nor_are_changed(world: World, slots: list[int]) -> None:
    results = []
    for fill in (0.0, torch.nan):
        rollout = world.rollout(5)
        _start(rollout, slots)
        others = [slot for slot in range(5) if slot not in slots]
        rollout.arena.k[:, others] = fill
        rollout.arena.v[:, others] = fill
        for step in range(3):
            latents = rollout.step_latents(_actions(world, slots, step), slots)
        results.append(latents)
        untouched = torch.cat([rollout.arena.k[:, others], rollout.arena.v[:, others]])
        assert torch.equal(untouched.nan_to_num(7.0), torch.full_like(untouched, fill).nan_to_num(7.0))
    assert torch.equal(*results)


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_a_tick_is_one_forward_per_stage_for_any_number_of_sessions(config_name: str, num_steps: int) -> None:
    world = tiny_world(config=config_name, num_steps=num_steps)
    rollout = world.rollout(5)
    _start(rollout, [0, 1, 2, 3, 4])
    for slots in ([0], [0, 1, 2, 3, 4], [4, 1, 2]):
        for step in range(3):
            before = world.forward_calls
            rollout.step(_actions(world, slots, step), slots)
            assert world.forward_calls - before == num_steps


def _step_from(world: World, states: list[RolloutState], slots: list[int]) -> Tensor:
    """Restore sessions into fresh slots and return the next latents."""
    rollout = world.rollout(5)
    for slot, state in zip(slots, states, strict=True):
        rollout.restore(slot, state)
    return rollout.step_latents(_actions(world, slots, 99), slots)


@pytest.mark.parametrize("slots", SLOT_SETS, ids=str)
def test_a_batch_costs_no_accuracy_in_bfloat16(config_name: str, slots: list[int]) -> None:
    """From equal states, the batch's error against float32 is at most twice that of the session alone."""
    exact, rounded = tiny_world(config=config_name), tiny_world(config=config_name, dtype=torch.bfloat16)
    source = exact.rollout(5)
    _start(source, slots)
    for step in range(_num_steps(exact)):
        source.step_latents(_actions(exact, slots, step), slots)
    states = [source.snapshot(slot, exact=False) for slot in slots]
    truth = torch.cat([_step_from(exact, [state], [slot]) for state, slot in zip(states, slots, strict=True)])
    alone = torch.cat([_step_from(rounded, [state], [slot]) for state, slot in zip(states, slots, strict=True)])
    together = _step_from(rounded, states, slots)
    for row in range(len(slots)):
        error_alone = (alone[row] - truth[row]).square().mean().sqrt()
        error_together = (together[row] - truth[row]).square().mean().sqrt()
        assert 0 < error_together <= 2 * error_alone + 1e-3
        assert error_alone < 0.1 * truth[row].std()
