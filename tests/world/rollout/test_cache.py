"""Invariant 1: a cached rollout equals the masked full forward over [clean; noisy], by every path."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.world.definitions import (
    Clip,
    assert_within,
    clean_noisy_mask,
    context,
    full_pass,
    random_actions,
    random_clip,
)
from world import World
from world.model.patterns import Banded, ClipMask, Continuation, KeyValue, TeacherForcing
from world.model.schedule import add_noise, x0_from_velocity
from world.model.transformer import Conditioning, Transformer
from world.rollout.cache import Arena, ArenaPattern
from world.rollout.inputs import action_vectors, noise_seed
from world.testing import CONFIGS, tiny_transformer

TOLERANCE = 1e-5
EVERY = slice(None)


@pytest.fixture(params=[0.0, 0.1])
def context_sigma(request: pytest.FixtureRequest) -> float:
    return float(request.param)


PIXEL, WAN = CONFIGS["pixel"][1], CONFIGS["wan"][1]
SHAPES = {
    "pixel": PIXEL,
    "wan": WAN,
    "pixel with a sink": replace(PIXEL, sink_frames=2),
    "wan, sink longer than the window": replace(WAN, sink_frames=6, window_frames=3),
}


@pytest.fixture(params=SHAPES)
def network(request: pytest.FixtureRequest) -> Transformer:
    return tiny_transformer(SHAPES[request.param])


@pytest.fixture
def clip(network: Transformer, context_sigma: float) -> Clip:
    """Return enough chunks to overwrite every ring position more than three times."""
    config = network.config
    return random_clip(config, config.sink_chunks + 4 * (config.window_chunks + 1) + 2, context_sigma=context_sigma)


def tokens_of(network: Transformer, frames: slice) -> slice:
    n = network.config.tokens_per_frame
    return slice(frames.start * n, frames.stop * n)


def chunk_of(network: Transformer, index: int) -> slice:
    size = network.config.chunk_frames
    return slice(index * size, (index + 1) * size)


def test_the_reference_tells_frames_apart(network: Transformer, clip: Clip) -> None:
    """Otherwise the comparisons below would prove nothing."""
    prediction = full_pass(network, clip, 0).prediction
    assert prediction.std() > 0.1
    first = chunk_of(network, 0)  # sees nothing but itself
    alone = network(clip.clean[:, first], clip.context_sigma[:, first], clip.cond(EVERY, first)).prediction
    assert_within(alone, prediction[:, first], TOLERANCE)
    later = chunk_of(network, 5)
    isolated = network(clip.clean[:, later], clip.context_sigma[:, later], clip.cond(EVERY, later)).prediction
    assert (isolated - prediction[:, later]).abs().max() > 1e-2


@torch.no_grad()
def test_teacher_forcing_equals_the_full_pass(network: Transformer, clip: Clip) -> None:
    reference = full_pass(network, clip, 0)
    output = network(
        torch.cat([clip.clean, clip.noisy[0]], 1),
        torch.cat([clip.context_sigma, clip.sigma[0]], 1),
        clip.cond(EVERY, EVERY, EVERY),
        pattern=TeacherForcing(network.config, clip.num_frames),
    )
    assert_within(output.prediction, reference.prediction, TOLERANCE)
    _assert_same_kv(output.kv, reference.kv, EVERY)


@torch.no_grad()
def test_an_explicit_mask_equals_the_full_pass(network: Transformer, clip: Clip) -> None:
    mask = clean_noisy_mask(network.config, clip.num_frames)
    output = network(
        torch.cat([clip.clean, clip.noisy[0]], 1),
        torch.cat([clip.context_sigma, clip.sigma[0]], 1),
        clip.cond(EVERY, EVERY, EVERY),
        pattern=ClipMask(network.config, torch.arange(clip.num_frames).repeat(2), mask),
    )
    reference = full_pass(network, clip, 0)
    assert_within(output.prediction, reference.prediction, TOLERANCE)
    _assert_same_kv(output.kv, reference.kv, EVERY)


@torch.no_grad()
def test_the_functional_cache_equals_the_full_pass(network: Transformer, clip: Clip) -> None:
    """Chunk by chunk from the first one, through the sink and before the window is full."""
    config, references = network.config, [full_pass(network, clip, version) for version in (0, 1)]
    committed_kv: list[list[KeyValue]] = []
    for i in range(clip.num_frames // config.chunk_frames):
        span = chunk_of(network, i)
        visible = [c for c in range(i) if c < config.sink_chunks or c >= i - config.window_chunks]
        pattern = Continuation(config, _join([committed_kv[c] for c in visible], network), span.start)
        for version in (0, 1):
            denoised = network(
                clip.noisy[version][:, span],
                clip.sigma[version][:, span],
                clip.cond(EVERY, span),
                pattern=pattern,
            )
            expected = references[version].prediction[:, clip.num_frames :][:, span]
            assert_within(denoised.prediction, expected, TOLERANCE)
        committed = network(clip.clean[:, span], clip.context_sigma[:, span], clip.cond(EVERY, span), pattern=pattern)
        assert_within(committed.prediction, references[0].prediction[:, span], TOLERANCE)
        committed_kv.append(committed.kv)
        _assert_same_kv(committed.kv, references[0].kv, tokens_of(network, span))


@pytest.mark.parametrize("slots", [[1, 2], [3, 0]], ids=["adjacent", "scattered"])
@torch.no_grad()
def test_the_ring_equals_the_full_pass(network: Transformer, clip: Clip, slots: list[int]) -> None:
    """Merged commit and denoise, then a second denoise; the two sessions are at different chunks.

    The arena starts full of NaN, so reading a position that was never written is detected.
    """
    config, references = network.config, [full_pass(network, clip, version) for version in (0, 1)]
    arena = Arena(config, 4, dtype=torch.float32)
    arena.k.fill_(torch.nan)
    arena.v.fill_(torch.nan)
    first = [config.sink_chunks + config.window_chunks + row for row in range(2)]  # chunk committed by the first step
    for row, slot in enumerate(slots):
        _prefill(network, clip, arena, slot, row, first[row])
    num_steps = clip.num_frames // config.chunk_frames - first[1] - 1
    assert num_steps > 3 * (config.window_chunks + 1)
    for step in range(num_steps):
        commits = [chunk_of(network, first[row] + step) for row in range(2)]
        denoises = [chunk_of(network, first[row] + step + 1) for row in range(2)]
        merged = network(
            torch.cat([_pick(clip.clean, commits), _pick(clip.noisy[0], denoises)], 1),
            torch.cat([_pick(clip.context_sigma, commits), _pick(clip.sigma[0], denoises)], 1),
            _conditioning(clip, commits, denoises),
            pattern=ArenaPattern.of(arena, slots, [chunk + step for chunk in first], num_chunks=2),
        )
        second = network(
            _pick(clip.noisy[1], denoises),
            _pick(clip.sigma[1], denoises),
            _conditioning(clip, denoises),
            pattern=ArenaPattern.of(arena, slots, [chunk + step + 1 for chunk in first]),
        )
        committed, denoised = merged.prediction.chunk(2, dim=1)
        clean, noisy = references[0].prediction.chunk(2, dim=1)
        assert_within(committed, _pick(clean, commits), TOLERANCE)
        assert_within(denoised, _pick(noisy, denoises), TOLERANCE)
        noisy = references[1].prediction.chunk(2, dim=1)[1]
        assert_within(second.prediction, _pick(noisy, denoises), TOLERANCE)
        for row, slot in enumerate(slots):
            _assert_committed(arena, slot, first[row] + step, network, references[0].kv, row)


@torch.no_grad()
def test_a_rollout_equals_the_full_pass(world: World) -> None:
    """The public interface end to end: every stage of every chunk, given the frames before it."""
    config, network = world.transformer.config, world.transformer
    frames, actions = context(world, seed=3)
    rollout = world.start(frames, actions, seed=11)
    start = world.encode(frames)[0]
    first = config.context_frames
    num_chunks = 3 * (config.window_chunks + 1) + 2
    played = [random_actions(world, 1, seed) for seed in range(num_chunks)]
    generated = [rollout.step_latents(step) for step in played]
    clean = torch.cat([start, *generated], 1)
    p = world.codec.temporal_patch
    vectors = [step.vector().unflatten(1, (-1, p)).flatten(2) for step in played]
    vector = torch.cat([action_vectors(actions, p), *vectors], 1)
    x = torch.zeros_like(clean)
    for stage, sigma in enumerate(world.sigmas[:-1].tolist()):
        noise = torch.zeros_like(clean)
        for chunk in range(first // config.chunk_frames, clean.shape[1] // config.chunk_frames):
            generator = torch.Generator().manual_seed(noise_seed(11, chunk, stage))
            span = chunk_of(network, chunk)
            noise[0, span] = torch.randn(noise[0, span].shape, generator=generator)
        x = noise if stage == 0 else add_noise(x, noise, torch.tensor(sigma))
        level = torch.full(clean.shape[:2], sigma)
        clip = Clip(clean, (x, x), (level, level), torch.full_like(level, world.context_sigma), vector, None)
        prediction = full_pass(network, clip, 0).prediction[:, clean.shape[1] :]
        x = x0_from_velocity(x, prediction, level)
    assert_within(clean[:, first:], x[:, first:], TOLERANCE)


def _prefill(network: Transformer, clip: Clip, arena: Arena, slot: int, row: int, num_chunks: int) -> None:
    config = network.config
    span = slice(0, num_chunks * config.chunk_frames)
    output = network(
        clip.clean[row : row + 1, span],
        clip.context_sigma[row : row + 1, span],
        clip.cond(slice(row, row + 1), span),
        pattern=Banded(config, tuple(range(span.stop))),
    )
    n = config.tokens_per_frame
    sink, window = config.sink_frames * n, config.window_frames * n
    if sink:
        arena.load(slot, 0, [(k[:, :sink], v[:, :sink]) for k, v in output.kv])
    arena.load(slot, num_chunks - config.window_chunks, [(k[:, -window:], v[:, -window:]) for k, v in output.kv])


def _assert_committed(arena: Arena, slot: int, newest: int, network: Transformer, kv: list[KeyValue], row: int) -> None:
    """Assert that the arena's sink and window, up to the chunk just committed, equal the full pass's."""
    config = network.config
    chunks = [*range(config.sink_chunks), *range(newest - config.window_chunks + 1, newest + 1)]
    for chunk in chunks:
        positions = arena.rings.frame_positions(torch.tensor([chunk]))[0]
        span = tokens_of(network, chunk_of(network, chunk))
        for layer, (k, v) in enumerate(kv):
            assert_within(arena.k[layer, slot][:, positions].flatten(1, 2).transpose(0, 1), k[row, span], TOLERANCE)
            assert_within(arena.v[layer, slot][:, positions].flatten(1, 2).transpose(0, 1), v[row, span], TOLERANCE)


def _assert_same_kv(ours: list[KeyValue], full: list[KeyValue], span: slice) -> None:
    for (k, v), (full_k, full_v) in zip(ours, full, strict=True):
        assert_within(k, full_k[:, span], TOLERANCE)
        assert_within(v, full_v[:, span], TOLERANCE)


def _join(chunks: list[list[KeyValue]], network: Transformer) -> list[KeyValue]:
    config = network.config
    empty = torch.zeros(2, 0, config.num_heads, config.head_dim)
    return [
        (torch.cat([empty, *(c[layer][0] for c in chunks)], 1), torch.cat([empty, *(c[layer][1] for c in chunks)], 1))
        for layer in range(config.num_layers)
    ]


def _pick(clip: Tensor, spans: list[slice]) -> Tensor:
    """Return each session's own span of frames: `b f …` → `b chunk …`."""
    return torch.stack([clip[row, span] for row, span in enumerate(spans)])


def _conditioning(clip: Clip, *spans: list[slice]) -> Conditioning:
    return Conditioning(actions=torch.cat([_pick(clip.actions, span) for span in spans], 1), text=clip.text)
