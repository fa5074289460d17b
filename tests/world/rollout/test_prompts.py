"""Rollouts of worlds with text: each slot has its own, encoded once, changeable at any time, and part of its state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.world.definitions import assert_within, context, random_actions
from world import Actions, Rollout, ShapeError, World
from world.model.cross_attention import CrossAttention, TextKeys
from world.model.transformer import Conditioning
from world.testing import tiny_world


@pytest.fixture
def world() -> World:
    return tiny_world(config="wan")


def _text(world: World, seed: int, length: int | None = None) -> Tensor:
    config = world.transformer.config
    return torch.randn(length or config.num_text_tokens, config.text_dim, generator=torch.Generator().manual_seed(seed))


def _started(world: World, texts: list[Tensor | None], **options: Any) -> Rollout:
    """Start slots 0 … with these texts, all else equal."""
    rollout = Rollout(world, len(texts), **options)
    frames, actions = context(world, seed=0)
    slots = list(range(len(texts)))
    rollout.start(slots, frames.expand(len(slots), -1, -1, -1, -1), Actions.cat([actions] * len(slots)), slots, texts)
    return rollout


def _play(rollout: Rollout, first: int, num: int, slots: list[int]) -> Tensor:
    """Return latents `b steps f c h w`."""
    computed = []
    for number in range(first, first + num):
        actions = Actions.cat([random_actions(rollout.model, 1, 100 * slot + number) for slot in slots])
        computed.append(rollout.step_latents(actions, slots))
    return torch.stack(computed, 1)


@torch.no_grad()
def test_precomputed_keys_equal_those_of_every_pass(world: World) -> None:
    network, config = world.transformer, world.transformer.config
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, config.channels, config.height, config.width, generator=generator)
    sigma, actions = torch.rand(2, 3, generator=generator), torch.randn(2, 3, config.action_dim, generator=generator)
    text = torch.stack([_text(world, 1), _text(world, 2)])
    complete = network(x, sigma, Conditioning(actions=actions, text=text)).prediction
    without = network(x, sigma, Conditioning(actions=actions)).prediction
    kv = network.text_keys(text)
    both = TextKeys(kv, torch.ones(2))
    assert torch.equal(network(x, sigma, Conditioning(actions=actions, text=both)).prediction, complete)
    one = network(x, sigma, Conditioning(actions=actions, text=TextKeys(kv, torch.tensor([0.0, 1.0])))).prediction
    assert_within(one[0], without[0], 1e-6)
    assert torch.equal(one[1], complete[1])
    assert not torch.allclose(complete, without, atol=0.01)


@pytest.mark.parametrize("static", [False, True])
def test_each_slot_follows_its_own_text(world: World, monkeypatch: pytest.MonkeyPatch, *, static: bool) -> None:
    texts = [_text(world, 1), None, _text(world, 2)]
    rollout = _started(world, texts, static=static)
    computed, keys = [], CrossAttention.keys
    monkeypatch.setattr(CrossAttention, "keys", lambda *args: computed.append(1) or keys(*args))  # type: ignore[func-returns-value]  # appends
    together = _play(rollout, 0, 5, [0, 1, 2])
    assert not computed, "a text's keys are computed when it is set, not in a step"
    for slot in range(3):
        alone = _started(world, [texts[slot] if other == slot else None for other in range(3)])
        assert_within(_play(alone, 0, 5, [slot])[0], together[slot], 1e-4)
    same = _started(world, [_text(world, 3)] * 3)
    assert not torch.allclose(_play(same, 0, 5, [0, 1, 2])[0], together[0], atol=0.01)


def test_a_short_text_is_padded_with_zeros(world: World) -> None:
    short = _text(world, 1, length=2)
    complete = torch.cat([short, torch.zeros(world.transformer.config.num_text_tokens - 2, short.shape[1])])
    assert torch.equal(_play(_started(world, [short]), 0, 3, [0]), _play(_started(world, [complete]), 0, 3, [0]))


def test_a_new_text_acts_from_the_next_chunk_as_if_it_had_always_been_there(world: World) -> None:
    rollout = _started(world, [_text(world, 1), _text(world, 1)])
    _play(rollout, 0, 4, [0, 1])
    state = rollout.snapshot(0, exact=False)
    rollout.set_text(0, _text(world, 2))
    changed = _play(rollout, 4, 4, [0])
    rollout.restore(0, replace(state, text=_text(world, 2)))
    assert torch.equal(_play(rollout, 4, 4, [0]), changed)
    rollout.restore(0, state)
    assert not torch.allclose(_play(rollout, 4, 4, [0]), changed, atol=0.01)
    rollout.set_text(0, None)
    assert rollout.snapshot(0).text is None


@pytest.mark.parametrize("exact", [False, True])
def test_a_snapshot_includes_the_text(world: World, *, exact: bool) -> None:
    rollout = _started(world, [_text(world, 1), None])
    _play(rollout, 0, 3, [0])
    rollout.restore(1, rollout.snapshot(0, exact=exact))
    first = [rollout.step_latents(random_actions(world, 1, 7), [slot]) for slot in (0, 1)]
    assert_within(first[1], first[0], 0.0 if exact else 1e-4)


def test_a_restore_that_is_given_up_leaves_the_text_as_it_was(world: World) -> None:
    rollout, other = (_started(world, [_text(world, 1), _text(world, 2)]) for _ in range(2))
    parts = rollout.restoring(0, rollout.snapshot(1, exact=False))
    next(parts)
    parts.close()
    assert torch.equal(_play(rollout, 0, 2, [0]), _play(other, 0, 2, [0]))


def test_rewinding_restores_the_text_of_that_frame(world: World) -> None:
    chunk = world.transformer.config.chunk_frames
    rollout = _started(world, [_text(world, 1)], timeline_chunks=40)
    before = _play(rollout, 0, 6, [0])
    rollout.set_text(0, _text(world, 2))
    after = _play(rollout, 6, 4, [0])

    past = rollout.snapshot(0, frame=3 * chunk)
    assert past.text is not None
    assert torch.equal(past.text, _text(world, 1))
    assert torch.equal(_play(rollout, 10, 1, [0]), _play(_again(rollout, world, before, after), 10, 1, [0]))

    rollout.rewind(0, 8 * chunk)
    assert torch.equal(_play(rollout, 8, 2, [0]), after[:, 2:])
    rollout.rewind(0, 3 * chunk)
    assert torch.equal(_play(rollout, 3, 3, [0]), before[:, 3:])


def _again(rollout: Rollout, world: World, before: Tensor, after: Tensor) -> Rollout:
    """The same actions in another rollout, up to the change of the text."""
    other = _started(world, [_text(world, 1)], timeline_chunks=40)
    assert torch.equal(_play(other, 0, 6, [0]), before)
    other.set_text(0, _text(world, 2))
    assert torch.equal(_play(other, 6, 4, [0]), after)
    assert rollout.frame_index(0) == other.frame_index(0) + world.transformer.config.chunk_frames
    return other


def test_compiled_code_is_not_used_with_text(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def network(*_: Any) -> Any:
        calls.append(1)
        return world.transformer

    monkeypatch.setattr(world, "network", network)
    rollout = _started(world, [_text(world, 1), None])
    _play(rollout, 0, 1, [0])
    assert not calls
    _play(rollout, 0, 1, [1])
    assert calls


def test_a_text_that_does_not_fit_is_rejected_and_changes_nothing(world: World) -> None:
    rollout, other = _started(world, [_text(world, 1)]), _started(world, [_text(world, 1)])
    config = world.transformer.config
    for wrong in (torch.zeros(config.num_text_tokens + 1, config.text_dim), torch.zeros(0, config.text_dim)):
        with pytest.raises(ShapeError, match=f"expected up to {config.num_text_tokens} tokens of {config.text_dim}"):
            rollout.set_text(0, wrong)
    frames, actions = context(world, seed=0)
    with pytest.raises(ShapeError, match=r"2 texts do not fit slots \[0\]"):
        rollout.start([0], frames, actions, [0], [None, None])
    with pytest.raises(ShapeError, match="expected up to"):
        rollout.start([0], frames, actions, [0], [torch.zeros(2, 3)])
    assert torch.equal(_play(rollout, 0, 2, [0]), _play(other, 0, 2, [0]))

    pixel = tiny_world()
    with pytest.raises(ShapeError, match="tiny-pixel takes no text"):
        pixel.rollout(1).start([0], *context(pixel, seed=0), [0], [torch.zeros(2, 3)])
    with pytest.raises(ShapeError, match="this config has no cross-attention"):
        pixel.transformer.text_keys(torch.zeros(1, 2, 3))
