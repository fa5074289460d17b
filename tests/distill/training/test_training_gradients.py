"""Which gradients flow through a cache in training, and that recomputed blocks give the same ones. In float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distill.methods.self_rollout import RollingCache, self_rollout
from distill.training.blocks import checkpoint_blocks
from world.model.config import TransformerConfig
from world.model.patterns import Banded, Continuation, KeyValue, TeacherForcing
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning, Transformer
from world.testing import CONFIGS, tiny_transformer

NAMES = ["pixel", "wan"]


def clip(config: TransformerConfig, num_frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, num_frames, config.channels, config.height, config.width)
    latents = torch.randn(shape, generator=generator, dtype=torch.float64)
    return latents, torch.randn(2, num_frames, config.action_dim, generator=generator, dtype=torch.float64)


def gradients(network: Transformer, loss: Tensor) -> dict[str, Tensor]:
    named = dict(network.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-7, atol: float = 1e-7) -> None:
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        torch.testing.assert_close(gradient, expected[name], rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_through_cached_keys_equal_those_of_the_masked_full_forward(name: str) -> None:
    """The window has rolled: there are more chunks before the last one than it attends to."""
    network = tiny_transformer(CONFIGS[name][1]).double()
    config = network.config
    num = config.sink_frames + config.window_frames + 3 * config.chunk_frames
    clean, actions = clip(config, num)
    noisy = clip(config, num, seed=1)[0]
    sigma = torch.full((2, num), 0.6, dtype=torch.float64)
    weight = clip(config, config.chunk_frames, seed=2)[0]

    full = network(
        torch.cat([clean, noisy], 1),
        torch.cat([torch.zeros_like(sigma), sigma], 1),
        Conditioning(actions=torch.cat([actions, actions], 1)),
        pattern=TeacherForcing(config, num),
    ).prediction[:, -config.chunk_frames :]

    before = num - config.chunk_frames
    cond = Conditioning(actions=actions[:, :before])
    level = torch.zeros(2, before, dtype=torch.float64)
    kv = network(clean[:, :before], level, cond, pattern=Banded(config, tuple(range(before)))).kv
    last = Continuation(config, [sink_and_window(config, *layer) for layer in kv], before)
    cond = Conditioning(actions=actions[:, before:])
    cached = network(noisy[:, before:], sigma[:, before:], cond, pattern=last).prediction

    torch.testing.assert_close(cached, full)
    assert_same(gradients(network, (cached * weight).sum()), gradients(network, (full * weight).sum()))


def sink_and_window(config: TransformerConfig, k: Tensor, v: Tensor) -> KeyValue:
    """Return the keys and values of sink and window, with their gradient."""
    sink, window = (frames * config.tokens_per_frame for frames in (config.sink_frames, config.window_frames))
    return torch.cat([k[:, :sink], k[:, -window:]], 1), torch.cat([v[:, :sink], v[:, -window:]], 1)


def rollout(network: Transformer, num_chunks: int, *, exit_stage: int = 1) -> Tensor:
    config = network.config
    context = config.sink_frames + config.window_frames
    latents, actions = (part.float() for part in clip(config, context + num_chunks * config.chunk_frames))
    cache = RollingCache.prefill(network, config, latents[:, :context], actions[:, :context])
    generator = torch.Generator().manual_seed(3)
    sigmas = sampling_sigmas(2, 6.0).float()
    return self_rollout(network, cache, actions[:, context:], sigmas, exit_stage, generator)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_crosses_chunks(name: str) -> None:
    """The last chunk's gradient is that of its pass over constant keys: removing the earlier chunks from the graph
    changes nothing."""
    network = tiny_transformer(CONFIGS[name][1])
    chunk = network.config.chunk_frames
    complete = rollout(network, 4)
    context = network.config.sink_frames + network.config.window_frames
    latents, actions = (part.float() for part in clip(network.config, context + 4 * chunk))
    with torch.no_grad():
        cache = RollingCache.prefill(network, network.config, latents[:, :context], actions[:, :context])
        for first in range(0, 3 * chunk, chunk):
            cond = Conditioning(actions=actions[:, context + first : context + first + chunk])
            done = complete[:, first : first + chunk]
            level = torch.zeros(done.shape[:2])
            cache = cache.push(network(done, level, cond, pattern=cache.pattern()).kv)
    assert all(not k.requires_grad and not v.requires_grad for k, v in cache.kv)
    noise_draws = torch.Generator().manual_seed(3)
    for _ in range(3):  # skip the draws of the first three chunks
        for _ in range(2):
            torch.randn(complete[:, :chunk].shape, generator=noise_draws)
    alone = self_rollout(network, cache, actions[:, -chunk:], sampling_sigmas(2, 6.0).float(), 1, noise_draws)
    torch.testing.assert_close(alone, complete[:, -chunk:])
    assert_same(gradients(network, alone.sum()), gradients(network, complete[:, -chunk:].sum()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointed_blocks_give_the_same_gradients_while_the_window_rolls(name: str) -> None:
    num_chunks = CONFIGS[name][1].window_chunks + 2
    plain = tiny_transformer(CONFIGS[name][1])
    expected = rollout(plain, num_chunks)
    expected_gradients = gradients(plain, expected.square().sum())
    recomputed = checkpoint_blocks(tiny_transformer(CONFIGS[name][1]))
    clip_again = rollout(recomputed, num_chunks)
    assert torch.equal(clip_again, expected)
    assert_same(gradients(recomputed, clip_again.square().sum()), expected_gradients, rtol=0.0, atol=0.0)
