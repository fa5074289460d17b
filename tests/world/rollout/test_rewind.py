"""Rewinding: a rollout returns to any kept frame bit by bit and continues from there as it did the first time."""

import pytest
import torch
from torch import Tensor

from tests.world.definitions import assert_within, context, random_actions
from world import Actions, Rollout, ShapeError, World
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS
from world.testing import tiny_world


def _rollout(world: World, timeline_chunks: int = 80) -> Rollout:
    frames, actions = context(world, seed=0)
    rollout = world.rollout(3, timeline_chunks=timeline_chunks)
    rollout.start([1], frames, actions, [7])
    return rollout


def _play(rollout: Rollout, first: int, num: int) -> list[Tensor]:
    """Return the frames of chunks `first` … with the same actions every time."""
    return [rollout.step(random_actions(rollout.model, 1, number), [1]) for number in range(first, first + num)]


@pytest.mark.parametrize("back_to", [0, 1, KV_CHECKPOINT_CHUNKS - 1, KV_CHECKPOINT_CHUNKS + 5, 45], ids=str)
def test_frames_after_a_rewind_equal_the_first_ones(world: World, back_to: int) -> None:
    chunk = world.transformer.config.chunk_frames
    rollout = _rollout(world)
    before = _play(rollout, 0, 45)
    rollout.rewind(1, back_to * chunk)
    assert rollout.frame_index(1) == back_to * chunk
    assert all(torch.equal(a, b) for a, b in zip(before[back_to:], _play(rollout, back_to, 45 - back_to), strict=True))
    assert rollout.frame_index(1) == 45 * chunk


def test_a_session_can_rewind_repeatedly_and_take_another_branch(world: World) -> None:
    chunk = world.transformer.config.chunk_frames
    rollout = _rollout(world)
    before = _play(rollout, 0, 40)
    rollout.rewind(1, 36 * chunk)
    other = _play(rollout, 500, 4)
    assert not torch.equal(other[-1], before[39])
    rollout.rewind(1, 20 * chunk)
    assert torch.equal(torch.cat(_play(rollout, 20, 20)), torch.cat(before[20:]))


def test_a_session_stepped_in_a_batch_rewinds_up_to_rounding(world: World) -> None:
    chunk = world.transformer.config.chunk_frames
    rollout = _rollout(world)
    rollout.start([2], *context(world, seed=5), [8])

    def play(first: int, num: int, slots: list[int]) -> Tensor:
        """Return the latents of slot 1."""
        steps = [Actions.cat([random_actions(world, 1, 100 * s + n) for s in slots]) for n in range(first, first + num)]
        return torch.stack([rollout.step_latents(actions, slots)[0] for actions in steps])

    before = play(0, 40, [1, 2])
    rollout.rewind(1, 20 * chunk)
    assert_within(play(20, 20, [1]), before[20:], 1e-4)


def test_the_last_picture_equals_the_decoded_one(world: World) -> None:
    chunk = world.transformer.config.chunk_frames
    rollout = _rollout(world)
    frames = _play(rollout, 0, 5)
    for back_to in (5, 3, 1):
        rollout.rewind(1, back_to * chunk)
        assert torch.equal(rollout.last_picture(1), frames[back_to - 1][0, -1])
    assert torch.equal(_play(rollout, 1, 1)[0], frames[1])


def test_a_snapshot_of_the_past_does_not_change_the_present(world: World) -> None:
    chunk = world.transformer.config.chunk_frames
    rollout, alone = _rollout(world), _rollout(world)
    before = _play(rollout, 0, 40)
    _play(alone, 0, 40)
    state = rollout.snapshot(1, frame=10 * chunk)
    rollout.restore(2, state)
    branch = [rollout.step(random_actions(world, 1, number), [2]) for number in range(10, 40)]
    assert torch.equal(torch.cat(branch), torch.cat(before[10:]))
    assert torch.equal(torch.cat(_play(rollout, 40, 3)), torch.cat(_play(alone, 40, 3)))
    rollout.rewind(1, 5 * chunk)
    assert torch.equal(_play(rollout, 5, 1)[0], before[5])
    assert rollout.oldest_frame(2) == 10 * chunk, "a branch cannot rewind beyond its beginning"


def test_a_long_session_keeps_the_promised_timeline_and_little_more(world: World) -> None:
    chunk, promised = world.transformer.config.chunk_frames, 40
    rollout = _rollout(world, timeline_chunks=promised)
    frames = _play(rollout, 0, 150)
    oldest = rollout.oldest_frame(1) // chunk
    history = world.transformer.config.num_layers * world.transformer.config.window_chunks
    assert 150 - promised - 2 * KV_CHECKPOINT_CHUNKS - history <= oldest <= 150 - promised
    rollout.rewind(1, 110 * chunk)
    assert torch.equal(torch.cat(_play(rollout, 110, 40)), torch.cat(frames[110:]))
    oldest = rollout.oldest_frame(1) // chunk
    replayed = world.rollout(1)
    replayed.restore(0, rollout.snapshot(1, exact=False, frame=oldest * chunk))
    assert replayed.frame_index(0) == oldest * chunk


def test_unreachable_frames_are_reported(world: World) -> None:
    chunk = world.transformer.config.chunk_frames
    rollout = _rollout(world)
    _play(rollout, 0, 4)
    steps = f", in steps of {chunk}$" if chunk > 1 else "$"
    for frame in (-chunk, 5 * chunk, *([1] if chunk > 1 else [])):
        with pytest.raises(ShapeError, match=rf"frame {frame}: slot 1 can go back to frames 0 to \d+{steps}"):
            rollout.rewind(1, frame)
    pixel = tiny_world()
    without = pixel.rollout(1)
    without.start([0], *context(pixel, seed=0), [1])
    without.step(random_actions(pixel, 1, 0))
    with pytest.raises(ShapeError, match="slot 0 is at 1, its oldest; a rollout that goes back needs timeline_chunks"):
        without.rewind(0, 0)
    without.rewind(0, 1)
    assert without.frame_index(0) == 1, "the present frame can always be kept"
