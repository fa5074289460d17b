"""The public interface: actions, starts, and errors that say what was wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.world.definitions import assert_within, context, random_actions
from world import ActionError, Actions, Sampler, ShapeError, World
from world.codecs.convolutional import ConvolutionalCodec
from world.rollout.inputs import action_vectors, fit_context, noise_seed
from world.testing import CONFIGS, tiny_transformer, tiny_world


def test_the_readme_example_works(world: World) -> None:
    frames, actions = context(world, seed=0)
    rollout = world.start(frames.numpy(), actions, seed=0)
    out = rollout.step(world.actions(["up"]))
    assert out.dtype is torch.uint8
    assert out.shape == (1, world.chunk_pixel_frames, world.card.height, world.card.width, 3)
    assert not torch.equal(rollout.step(world.actions([])), out)


def test_actions_are_named_by_their_buttons(world: World) -> None:
    assert world.actions(["up"]).buttons.tolist() == [[[True, False]]]
    assert world.actions([]).buttons.tolist() == [[[False, False]]]
    assert world.actions([["down", "up"], []]).buttons.tolist() == [[[True, True]], [[False, False]]]
    assert world.actions([[], ["down"]]).axes.shape == (2, 1, len(world.card.axes))


def test_an_unknown_button_is_reported_with_the_known_ones(world: World) -> None:
    with pytest.raises(ActionError, match=r"button 'fire': tiny-\w+ has up, down"):
        world.actions(["fire"])


def test_one_action_held_equals_the_same_action_in_every_frame(world: World) -> None:
    frames, actions = context(world, seed=0)
    held = world.actions(["down"])
    written_out = held.repeat(world.chunk_pixel_frames)
    one, two = (world.start(frames, actions).step_latents(step) for step in (held, written_out))
    assert torch.equal(one, two)


def test_a_short_start_repeats_its_first_frame_with_no_action(world: World) -> None:
    frames, actions = context(world, seed=0, num_frames=2)
    missing = world.context_pixel_frames - 2
    padded = torch.cat([frames[:, :1].repeat(1, missing, 1, 1, 1), frames], 1)
    idle = Actions.none(1, missing, len(world.card.buttons), len(world.card.axes))
    step = random_actions(world, 1, 0)
    short = world.start(frames, actions).step_latents(step)
    assert torch.equal(short, world.start(padded, Actions.cat([idle, actions], 1)).step_latents(step))


def test_a_long_start_uses_its_last_frames(world: World) -> None:
    num = world.context_pixel_frames
    frames, actions = context(world, seed=0, num_frames=num + 5)
    step = random_actions(world, 1, 0)
    long = world.start(frames, actions).step_latents(step)
    assert torch.equal(long, world.start(frames[:, -num:], actions.frames(5)).step_latents(step))
    assert not torch.equal(long, world.start(frames[:, :num], actions.frames(0, num)).step_latents(step))


def test_a_read_only_start_is_not_written_to(world: World) -> None:
    picture = np.full((1, 1, world.card.height, world.card.width, 3), 90, np.uint8)
    picture.flags.writeable = False
    world.start(picture, world.actions([])).step(world.actions(["up"]))
    assert (picture == 90).all()


def test_starts_in_a_batch_equal_starts_alone(world: World) -> None:
    contexts = [context(world, seed=i) for i in range(2)]
    frames, actions = torch.cat([f for f, _ in contexts]), Actions.cat([a for _, a in contexts])
    both = world.start(frames, actions, seed=4).step_latents(world.actions([["up"], ["up"]]))
    for row, (own_frames, own_actions) in enumerate(contexts):
        alone = world.start(own_frames, own_actions, seed=4 + row).step_latents(world.actions(["up"]))
        assert_within(both[row], alone[0], 1e-4)


def test_wrong_starts_are_reported(world: World) -> None:
    frames, actions = context(world, seed=0)
    rollout = world.rollout(2)
    with pytest.raises(ShapeError, match=r"torch\.float32"):
        rollout.start([0], frames.float(), actions, [0])
    with pytest.raises(ShapeError, match=r"expected uint8 \(b, t, 32, 32, 3\)"):
        rollout.start([0], frames[:, :, :16], actions, [0])
    with pytest.raises(ShapeError, match="t ≥ 1"):
        rollout.start([0], frames[:, :0], actions.frames(0, 0), [0])
    with pytest.raises(ShapeError, match="actions are 1 x 1"):
        rollout.start([0], frames, actions.frames(0, 1), [0])
    with pytest.raises(ActionError, match="buttons and axes"):
        rollout.start([0], frames, Actions(actions.buttons[..., :1], actions.axes), [0])
    with pytest.raises(ShapeError, match="2 seeds and 1 contexts"):
        rollout.start([0, 1], frames, actions, [0, 1])
    for slots in ([2], [-1], [0, 0]):
        with pytest.raises(ShapeError, match=r"each must be listed once and be in 0 … 1"):
            rollout.start(slots, frames.repeat(len(slots), 1, 1, 1, 1), actions, [0] * len(slots))
    with pytest.raises(ShapeError, match=r"slots \[\] have not been started"):
        rollout.step(world.actions(["up"]))


def test_wrong_steps_are_reported_and_change_nothing(world: World) -> None:
    frames, actions = context(world, seed=0)
    rollout = world.rollout(3)
    rollout.start([1], frames, actions, [0])
    expected = world.rollout(3)
    expected.start([1], frames, actions, [0])
    with pytest.raises(ShapeError, match=r"slots \[0\] have not been started"):
        rollout.step(world.actions(["up"]), [0])
    with pytest.raises(ShapeError, match="listed once"):
        rollout.step(world.actions([["up"], ["up"]]), [1, 1])
    with pytest.raises(ShapeError, match="2 x 1; 1 slots need"):
        rollout.step(world.actions([["up"], ["up"]]), [1])
    with pytest.raises(ShapeError, match=r"1 x 5; 1 slots need"):
        rollout.step(world.actions(["up"]).repeat(5), [1])
    with pytest.raises(ActionError, match="buttons and axes"):
        rollout.step(Actions.none(1, 1, 7), [1])
    for ask in (rollout.frame_index, rollout.snapshot):
        with pytest.raises(ShapeError, match=r"slots \[2\] have not been started"):
            ask(2)
    with pytest.raises(ShapeError, match=r"be in 0 … 2"):
        rollout.restore(3, rollout.snapshot(1))
    assert torch.equal(rollout.step(world.actions(["up"])), expected.step(world.actions(["up"])))


def test_actions_of_unequal_shapes_are_reported() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 2, 3\) and \(1, 1, 0\)"):
        Actions(torch.zeros(1, 2, 3, dtype=torch.bool), torch.zeros(1, 1, 0))


def test_wrong_configs_are_reported(config_name: str) -> None:
    config = CONFIGS[config_name][1]
    for change, message in (
        ({"num_heads": 5}, "5 heads"),
        ({"patch": 3}, "3-patches"),
        ({"chunk_frames": 3, "window_frames": 4, "sink_frames": 0}, "multiples of chunk 3"),
    ):
        with pytest.raises(ShapeError, match=message):
            replace(config, **change)  # type: ignore[arg-type]  # the fields differ in type


def test_a_world_without_actions_plays() -> None:
    codec_config, config = CONFIGS["pixel"]
    config = replace(config, num_buttons=0)
    card = replace(tiny_world().card, buttons=(), axes=())
    world = World(card, ConvolutionalCodec(codec_config), tiny_transformer(config), Sampler())
    picture = torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8)
    rollout = world.start(picture, world.actions([]))
    first, second = rollout.step(world.actions([])), rollout.step(world.actions([]))
    assert not torch.equal(first, second)
    with pytest.raises(ActionError, match="tiny-pixel has none"):
        world.actions(["up"])


def test_all_tensors_are_on_the_world_s_device(world: World) -> None:
    """The meta device rejects tensors of other devices as a GPU does, and every machine has one."""
    elsewhere = World(world.card, world.codec, world.transformer, world.sampler, device="meta")
    frames, actions = context(world, seed=0)
    rollout = elsewhere.start(frames, actions)
    for _ in range(2):
        assert rollout.step_latents(random_actions(world, 1, 0)).device.type == "meta"
    state = rollout.snapshot(0, exact=False)
    at_home = replace(
        state,
        history=torch.zeros(state.history.shape),
        history_actions=torch.zeros(state.history_actions.shape),
        codec={name: torch.zeros(value.shape, dtype=value.dtype) for name, value in state.codec.items()},
    )
    rollout.restore(0, at_home)
    assert rollout.step_latents(random_actions(world, 1, 0)).device.type == "meta"
    assert {value.device.type for value in rollout.snapshot(0).codec.values()} <= {"meta"}


def test_noise_differs_by_seed_chunk_and_stage() -> None:
    seeds = {noise_seed(seed, chunk, stage) for seed in range(-20, 20) for chunk in range(40) for stage in range(4)}
    assert len(seeds) == 40 * 40 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_fitting_a_context_keeps_frames_and_actions_together() -> None:
    frames = torch.arange(6, dtype=torch.uint8).view(1, 6, 1, 1, 1).expand(1, 6, 1, 1, 3)
    actions = Actions(torch.ones(1, 6, 1, dtype=torch.bool), torch.arange(6.0).view(1, 6, 1))
    for num in (4, 6, 9):
        fitted, fitted_actions = fit_context(frames, actions, num)
        assert fitted.shape[1] == fitted_actions.num_frames == num
        real = slice(max(0, num - 6), None)
        assert fitted[0, real, 0, 0, 0].tolist() == fitted_actions.axes[0, real, 0].tolist()
        assert fitted_actions.buttons[0, :, 0].sum() == min(num, 6)


def test_an_action_vector_lists_its_pixel_frames_actions_in_order() -> None:
    actions = Actions(torch.zeros(1, 9, 0, dtype=torch.bool), torch.arange(1.0, 10.0).view(1, 9, 1))
    expected = [[0.0, 0.0, 0.0, 1.0], [2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0]]
    assert action_vectors(actions, 4).tolist() == [expected]
    assert action_vectors(actions, 1)[0, :, 0].tolist() == list(range(1, 10))
    both = Actions(torch.tensor([[[True, False]]]), torch.tensor([[[0.5]]]))
    assert action_vectors(both, 1).tolist() == [[[1.0, 0.0, 0.5]]], "buttons first, then axes"
