"""Invariant 2: what happens in chunk k changes chunk k and what can see it, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.world.definitions import Clip, context, random_actions, random_clip
from world import Actions, World
from world.model.patterns import Banded, Bidirectional, TeacherForcing
from world.model.transformer import Transformer
from world.testing import CONFIGS, tiny_transformer

NUM_CHUNKS, CHANGED = 14, 4
EVERY = slice(None)


@pytest.fixture
def network(config_name: str) -> Transformer:
    return tiny_transformer(CONFIGS[config_name][1])


def _changed_clean(clip: Clip, span: slice) -> Clip:
    clean = clip.clean.clone()
    clean[:, span] += 1.0
    return replace(clip, clean=clean)


def _changed_noisy(clip: Clip, span: slice) -> Clip:
    noisy = clip.noisy[0].clone()
    noisy[:, span] += 1.0
    return replace(clip, noisy=(noisy, clip.noisy[1]))


def _changed_actions(clip: Clip, span: slice) -> Clip:
    actions = clip.actions.clone()
    actions[:, span] = 1 - actions[:, span]
    return replace(clip, actions=actions)


@torch.no_grad()
def _teacher_forced(network: Transformer, clip: Clip) -> tuple[Tensor, Tensor]:
    """Return the predictions of the clean and of the noisy chunks: `b chunk …` each."""
    output = network(
        torch.cat([clip.clean, clip.noisy[0]], 1),
        torch.cat([clip.context_sigma, clip.sigma[0]], 1),
        clip.cond(EVERY, EVERY, EVERY),
        pattern=TeacherForcing(network.config, clip.num_frames),
    )
    clean, noisy = output.prediction.unflatten(1, (2 * NUM_CHUNKS, -1)).chunk(2, dim=1)
    return clean, noisy


def _chunks_that_differ(before: Tensor, after: Tensor) -> list[int]:
    """Return the chunks in which the two differ in any bit."""
    return [i for i in range(before.shape[1]) if not torch.equal(before[:, i], after[:, i])]


@pytest.mark.parametrize(
    ("change", "in_clean", "in_noisy"),
    [
        (_changed_clean, True, False),
        (_changed_noisy, False, True),
        (_changed_actions, True, True),
    ],
    ids=["clean frames", "noisy frames", "actions"],
)
def test_a_change_reaches_its_chunk_and_those_that_see_it(
    network: Transformer, change: Callable[[Clip, slice], Clip], in_clean: bool, in_noisy: bool
) -> None:
    config = network.config
    clip = random_clip(config, NUM_CHUNKS)
    span = slice(CHANGED * config.chunk_frames, (CHANGED + 1) * config.chunk_frames)
    before, after = _teacher_forced(network, clip), _teacher_forced(network, change(clip, span))
    reach = CHANGED + config.num_layers * config.window_chunks  # the last chunk connected with it through the layers
    assert reach < NUM_CHUNKS - 1
    seen_later = list(range(CHANGED + 1, reach + 1)) if in_clean else []
    assert _chunks_that_differ(before[0], after[0]) == ([CHANGED] if in_clean else []) + seen_later
    assert _chunks_that_differ(before[1], after[1]) == ([CHANGED] if in_noisy else []) + seen_later


def test_a_change_in_the_sink_stays_visible() -> None:
    network = tiny_transformer(CONFIGS["wan"][1])
    clip = random_clip(network.config, NUM_CHUNKS)
    changed = _changed_clean(clip, slice(0, network.config.sink_frames))
    before, after = _teacher_forced(network, clip), _teacher_forced(network, changed)
    assert _chunks_that_differ(before[0], after[0]) == list(range(NUM_CHUNKS))
    assert _chunks_that_differ(before[1], after[1]) == list(range(1, NUM_CHUNKS))


@torch.no_grad()
def test_prefill_is_causal_and_the_teacher_is_not(network: Transformer) -> None:
    clip = random_clip(network.config, NUM_CHUNKS)
    changed = _changed_clean(clip, slice(CHANGED * network.config.chunk_frames, None))
    banded = Banded(network.config, tuple(range(clip.num_frames)))
    for pattern, expected in ((banded, CHANGED), (Bidirectional(), 0)):
        before, after = (
            network(c.clean, c.context_sigma, c.cond(EVERY, EVERY), pattern=pattern).prediction.unflatten(
                1, (NUM_CHUNKS, -1)
            )
            for c in (clip, changed)
        )
        assert _chunks_that_differ(before, after) == list(range(expected, NUM_CHUNKS))


def test_an_action_changes_the_chunk_it_led_to_and_no_earlier_one(world: World) -> None:
    frames, actions = context(world, seed=0)
    played = [random_actions(world, 1, seed) for seed in range(8)]
    other = list(played)
    other[CHANGED] = Actions(~played[CHANGED].buttons, played[CHANGED].axes)
    before, after = (
        torch.cat([rollout.step_latents(step)[:, None] for step in steps], 1)
        for rollout, steps in ((world.start(frames, actions), played), (world.start(frames, actions), other))
    )
    assert _chunks_that_differ(before, after) == list(range(CHANGED, 8))
    assert (before - after)[:, CHANGED].abs().max() > 1e-3


def test_every_pixel_frame_s_action_matters(world: World) -> None:
    frames, actions = context(world, seed=0)
    neutral = Actions.none(1, world.chunk_pixel_frames, len(world.card.buttons), len(world.card.axes))
    reference = world.start(frames, actions).step_latents(neutral)
    for frame in range(world.chunk_pixel_frames):
        pressed = Actions(neutral.buttons.clone(), neutral.axes)
        pressed.buttons[0, frame, 0] = True
        assert not torch.equal(world.start(frames, actions).step_latents(pressed), reference)


@pytest.mark.parametrize("what", ["frames", "actions"])
def test_the_context_matters(world: World, what: str) -> None:
    frames, actions = context(world, seed=0)
    step = random_actions(world, 1, 0)
    reference = world.start(frames, actions).step_latents(step)
    if what == "frames":
        frames = frames.clone()
        frames[:, -1] = 255 - frames[:, -1]
    else:
        actions = Actions(actions.buttons.clone(), actions.axes)
        actions.buttons[:, -1] ^= True
    assert (world.start(frames, actions).step_latents(step) - reference).abs().max() > 1e-3
