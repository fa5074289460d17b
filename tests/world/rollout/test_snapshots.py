"""Invariant 5: a session is data. Restored anywhere, it continues as if never interrupted."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from tests.world.definitions import assert_within, context, random_actions
from world import Rollout, RolloutState, ShapeError, StateError, World
from world.rollout.snapshots import check_state, from_bytes, to_bytes
from world.testing import tiny_world

SEED = 21


def _played(world: World, num_steps: int, *, slot: int = 0, num_slots: int = 4) -> Rollout:
    frames, actions = context(world, seed=0)
    rollout = world.rollout(num_slots)
    rollout.start([slot], frames, actions, [SEED])
    for step in range(num_steps):
        rollout.step(random_actions(world, 1, step), [slot])
    return rollout


def _long(world: World) -> int:
    """Return a number of steps after which the history has reached its limit."""
    config = world.transformer.config
    return config.num_layers * config.window_chunks + 6


def _continue(rollout: Rollout, slot: int, num_steps: int = 9) -> tuple[Tensor, Tensor]:
    """Return latents and frames of the next steps, past another wrap of the ring."""
    latents, frames = [], []
    for step in range(num_steps):
        latents.append(rollout.step_latents(random_actions(rollout.model, 1, 500 + step), [slot]))
        frames.append(rollout.decode(latents[-1], [slot]))
    return torch.cat(latents, 1), torch.cat(frames, 1)


@pytest.mark.parametrize("target_kind", ["same slot", "another slot", "another rollout"])
def test_a_restored_copy_is_bit_equal(world: World, target_kind: str) -> None:
    rollout = _played(world, _long(world))
    state = rollout.snapshot(0)
    latents, frames = _continue(rollout, 0)
    index = rollout.frame_index(0)
    target, slot = (
        (world.rollout(2), 1) if target_kind == "another rollout" else (rollout, 0 if target_kind == "same slot" else 3)
    )
    target.restore(slot, state)
    restored_latents, restored_frames = _continue(target, slot)
    assert torch.equal(restored_latents, latents)
    assert torch.equal(restored_frames, frames)
    assert target.frame_index(slot) == index


@pytest.mark.parametrize("num_steps", [0, 1, 5, None], ids=["at once", "soon", "part full", "long after"])
def test_a_replayed_state_is_equal_within_rounding(world: World, num_steps: int | None) -> None:
    rollout = _played(world, _long(world) if num_steps is None else num_steps)
    state = rollout.snapshot(0, exact=False)
    config = world.transformer.config
    if num_steps is None:
        limit = config.sink_frames + config.num_layers * config.window_frames + config.chunk_frames
        assert len(state.history) == limit
        assert state.history_index[config.sink_frames] > config.sink_frames, "the history should have lost its start"
    assert state.kv is None
    latents, frames = _continue(rollout, 0)
    other = world.rollout(3)
    other.arena.k.fill_(torch.nan)
    other.arena.v.fill_(torch.nan)
    other.restore(2, state)
    restored_latents, restored_frames = _continue(other, 2)
    assert_within(restored_latents, latents, 1e-4)
    assert (restored_frames.int() - frames.int()).abs().max() <= 1


def test_replay_needs_the_whole_history(world: World) -> None:
    """With one window less of history it is a restart, not a restore; the tolerance above distinguishes them."""
    rollout = _played(world, _long(world))
    state = rollout.snapshot(0, exact=False)
    config = world.transformer.config
    keep = [*range(config.sink_frames), *range(config.sink_frames + config.window_frames, len(state.history))]
    shorter = replace(
        state,
        history=state.history[keep],
        history_actions=state.history_actions[keep],
        history_index=tuple(state.history_index[i] for i in keep),
    )
    other = world.rollout(1)
    other.restore(0, shorter)
    assert (_continue(other, 0, 1)[0] - _continue(rollout, 0, 1)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_a_state_survives_a_file(world: World, exact: bool, text: bool, tmp_path: Path) -> None:
    rollout = _played(world, _long(world))
    if text and (dim := world.transformer.config.text_dim):
        rollout.set_text(0, torch.randn(3, dim, generator=torch.Generator().manual_seed(1)))
    (tmp_path / "session").write_bytes(to_bytes(rollout.snapshot(0, exact=exact)))
    state = from_bytes((tmp_path / "session").read_bytes())
    check_state(world, state)
    fresh, expected = world.rollout(1), world.rollout(1)
    fresh.restore(0, state)
    expected.restore(0, rollout.snapshot(0, exact=exact))
    for ours, theirs in zip(_continue(fresh, 0), _continue(expected, 0), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("num_steps", [0, 1, 5, 40])
def test_a_state_fits_its_own_world_and_no_other(world: World, num_steps: int) -> None:
    state = _played(world, num_steps).snapshot(0)
    check_state(world, state)
    for changed in (
        {"history_index": state.history_index[1:]},
        {"history": state.history[1:]},
        {"history": state.history.double()},
        {"history": state.history / 0},
        {"history_actions": state.history_actions[:, :1]},
        {"history_actions": state.history_actions * torch.nan},
        {"next_chunk": state.next_chunk + 1},
        {"start_chunk": state.next_chunk + 1},
        {"start_chunk": 0},
    ):
        with pytest.raises(ShapeError):
            check_state(world, replace(state, **changed))
    other = tiny_world(config="wan" if len(state.history_index) and world.card.name == "tiny-pixel" else "pixel")
    with pytest.raises(ShapeError):
        check_state(other, state)


def test_a_state_with_an_unsuitable_text_is_rejected(world: World) -> None:
    state = _played(world, 1).snapshot(0)
    dim = world.transformer.config.text_dim
    for shape in ((0, dim), (5, dim), (2, dim + 1), (2, 2, dim)):
        with pytest.raises(ShapeError, match="text"):
            check_state(world, replace(state, text=torch.zeros(shape)))
    with pytest.raises(ShapeError, match="text"):
        check_state(world, replace(state, text=torch.full((2, dim), torch.nan)))


@given(data=st.binary(max_size=200))
def test_bytes_that_are_not_a_session_are_rejected(data: bytes) -> None:
    with pytest.raises(StateError):
        from_bytes(data)


def test_files_of_another_format_or_with_missing_parts_are_rejected() -> None:
    complete = load(to_bytes(_played(tiny_world(), 2).snapshot(0)))
    for name in ("numbers", "history", "history_index", "history_actions"):
        with pytest.raises(StateError):
            from_bytes(save({key: value for key, value in complete.items() if key != name}))
    numbers = complete["numbers"].clone()
    numbers[0] = 99
    with pytest.raises(StateError, match="format 99"):
        from_bytes(save({**complete, "numbers": numbers}))
    for wrong in (numbers[:2], torch.tensor([1.0, torch.inf, 1.0, 1.0]), torch.tensor(1)):
        with pytest.raises(StateError):
            from_bytes(save({**complete, "numbers": wrong}))


def test_forks_are_equal_under_equal_actions_and_diverge_under_others(world: World) -> None:
    rollout = _played(world, 3)
    state = rollout.snapshot(0)
    for slot in (1, 2, 3):
        rollout.restore(slot, state)
    up, down = world.actions(["up"]), world.actions(["down"])
    for _ in range(3):
        futures = [rollout.step_latents(action, [slot]) for slot, action in ((1, up), (2, up), (3, down))]
    assert torch.equal(futures[0], futures[1])
    assert (futures[0] - futures[2]).abs().max() > 1e-3


def test_a_snapshot_is_a_copy(world: World) -> None:
    """Neither its own session nor those it is restored into change it."""
    rollout = _played(world, _long(world))
    state = rollout.snapshot(0)
    before = [tensor.clone() for tensor in _tensors(state)]
    rollout.restore(1, state)
    for slot in (0, 1):
        _continue(rollout, slot)
    assert all(torch.equal(a, b) for a, b in zip(before, _tensors(state), strict=True))


def _tensors(state: RolloutState) -> list[Tensor]:
    values = [getattr(state, field.name) for field in fields(state)]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return [*tensors, *state.codec.values(), *(state.kv or ())]


def test_a_recorded_action_log_replays_to_identical_frames(world: World) -> None:
    first, second = (_played(world, _long(world), slot=2) for _ in range(2))
    for ours, theirs in zip(_continue(first, 2), _continue(second, 2), strict=True):
        assert torch.equal(ours, theirs)


def test_another_seed_gives_another_future(world: World) -> None:
    frames, actions = context(world, seed=0)
    step = random_actions(world, 1, 0)
    one, two = (world.start(frames, actions, seed=seed).step_latents(step) for seed in (1, 2))
    assert (one - two).abs().max() > 1e-2


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["step", "save", "load", "load by replay", "start"]), st.integers(0, 2)), max_size=30
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_any_order_of_steps_saves_and_loads_equals_sessions_alone(
    config_name: str, operations: list[tuple[str, int]]
) -> None:
    """Three slots of one arena against three rollouts of one slot each, through the same operations.

    One saved state is shared, so sessions also move between slots.
    """
    world = tiny_world(config=config_name)
    shared, alone = world.rollout(3), [world.rollout(1) for _ in range(3)]
    for slot in range(3):
        frames, actions = context(world, seed=slot)
        shared.start([slot], frames, actions, [slot])
        alone[slot].start([0], frames, actions, [slot])
    saved = (shared.snapshot(0), alone[0].snapshot(0))
    for number, (operation, slot) in enumerate([*operations, *(("step", slot) for slot in range(3))]):
        if operation == "save":
            saved = (shared.snapshot(slot), alone[slot].snapshot(0))
        elif operation == "start":
            frames, actions = context(world, seed=number)
            shared.start([slot], frames, actions, [number])
            alone[slot].start([0], frames, actions, [number])
        elif operation.startswith("load"):
            restored = saved[0] if operation == "load" else replace(saved[0], kv=None)
            shared.restore(slot, restored)
            alone[slot].restore(0, saved[1])
        else:
            step = random_actions(world, 1, number)
            assert_within(shared.step_latents(step, [slot]), alone[slot].step_latents(step), 1e-4)
            assert shared.frame_index(slot) == alone[slot].frame_index(0)
