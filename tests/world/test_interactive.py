"""What people see who try the library in a shell: values that print in a line, and mistakes that name their remedy."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch

from tests.world.definitions import context
from world import ActionError, ShapeError, World

MAX_LINE = 200


def test_worlds_starts_actions_rollouts_and_states_print_in_a_line(world: World) -> None:
    start = world.starts[0]
    rollout = world.start(start.frames[None], start.actions)
    state = rollout.snapshot(0)
    printed = [repr(value) for value in (world, start, start.actions, rollout, state, replace(state, kv=None))]
    assert all(len(line) <= MAX_LINE and "\n" not in line for line in printed), printed
    name, num = world.card.name, world.context_pixel_frames
    assert printed[0].startswith(f"World('{name}', 32 x 32 at 30 frames/s, buttons=['up', 'down'], axes=")
    assert printed[0].endswith(", 2 starts, float32 on cpu)")
    num_axes = len(world.card.axes)
    assert printed[2] == f"Actions(1 x {num} frames, 2 buttons, {num_axes} axes)"
    assert printed[1] == f"Start('noise 0', frames=uint8 ({num}, 32, 32, 3), actions={printed[2]})"
    assert printed[3] == f"Rollout('{name}', 1 slots, 1 started, timeline_chunks=0)"
    assert "kv=0.0 MB" in printed[4]
    assert "kv=None" in printed[5]


def test_one_button_may_be_named_without_a_list(world: World) -> None:
    for one, same in (("up", ["up"]), (["up"], [["up"]]), (["up", []], None), ([["up"], "down"], [["up"], ["down"]])):
        if same is None:
            with pytest.raises(ActionError, match=r"button \[\]: tiny-\w+ has up, down"):
                world.actions(one)
        else:
            assert torch.equal(world.actions(one).buttons, world.actions(same).buttons)
    with pytest.raises(ActionError, match="button 'jump': "):
        world.actions("jump")


def test_going_back_without_a_timeline_names_what_is_missing(world: World) -> None:
    frames, actions = context(world, seed=0)
    chunk = world.transformer.config.chunk_frames
    rollout = world.start(frames, actions)
    for _ in range(2):
        rollout.step(world.actions("up"))
    for go_back in (rollout.rewind, lambda slot, frame: rollout.snapshot(slot, frame=frame)):
        with pytest.raises(ShapeError, match=r"frame \d+: .*needs timeline_chunks=N, see World\.start"):
            go_back(0, chunk)
    rollout = world.start(frames, actions, timeline_chunks=8)
    first = rollout.step(world.actions("up"))
    second = rollout.step(world.actions("up"))
    rollout.rewind(0, chunk)
    assert torch.equal(rollout.step(world.actions("up")), second)
    rollout.rewind(0, 0)
    assert torch.equal(rollout.step(world.actions("up")), first)
    with pytest.raises(ShapeError, match=r"can go back to frames 0 to \d+(, in steps of \d+)?$"):
        rollout.rewind(0, 50 * chunk)


def test_states_starts_and_actions_are_saved_and_loaded_as_weights_are(world: World) -> None:
    frames, actions = context(world, seed=0)
    rollout = world.start(frames, actions)
    rollout.step(world.actions("up"))
    file = io.BytesIO()
    torch.save({"state": rollout.snapshot(0), "start": world.starts[1], "action": world.actions("up")}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert torch.equal(loaded["start"].frames, world.starts[1].frames)
    other = world.rollout(1)
    other.restore(0, loaded["state"])
    expected = rollout.step(world.actions("up"))
    assert torch.equal(other.step(loaded["action"]), expected)
