"""Generators that continue held-out starts: student, teacher, codec alone, copying the last picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from distill.evaluation.starts import Starts
from world.actions import Actions
from world.checkpoint import World
from world.model.schedule import euler_step, sampling_sigmas
from world.model.transformer import Conditioning
from world.rollout.inputs import action_vectors

Generator = Callable[[Tensor, Actions, Actions], Tensor]
"""(context frames uint8 `b t h w 3`, their actions `b t`, actions to follow `b f`) → frames uint8 `b f h w 3` on the
CPU, whatever the world's device."""

TEACHER_PREFIX = 8


def student_generator(
    world: World, *, num_steps: int | None = None, euler: bool | None = None, seed: int = 0, quiet: bool = True
) -> Generator:
    """Return the student as it is served: chunk by chunk through the rolling cache.

    num_steps, euler: replace the settings of the world's sampler. Euler steps of the ODE suit a causal network that has
    not been distilled; the few-step sampler predicts x0 and renoises, for which such a network was not trained.
    """
    default = world.sampler
    renoise = default.renoise if euler is None else not euler
    sampler = replace(default, num_steps=num_steps or default.num_steps, renoise=renoise)
    if sampler != default:
        world = World(world.card, world.codec, world.transformer, sampler, dtype=world.dtype, device=world.device)

    def generate(context: Tensor, context_actions: Actions, actions: Actions) -> Tensor:
        rollout = world.start(context, context_actions, seed)
        size, num = world.chunk_pixel_frames, actions.num_frames
        chunks = whole_chunks(actions, size)
        parts = [
            rollout.step(chunks.frames(first, first + size)).cpu() for first in tqdm(range(0, num, size), disable=quiet)
        ]
        return torch.cat(parts, dim=1)[:, :num]

    return generate


def teacher_generator(
    world: World, *, num_steps: int, shift: float, prefix: int | None = None, seed: int = 0
) -> Generator:
    """Return the bidirectional teacher, which generates clip by clip.

    `prefix` latents of a clip are given (see `fitting_prefix`), the rest is denoised from noise by `num_steps` Euler
    steps; the end of a clip is the prefix of the next.
    """

    @torch.inference_mode()
    def generate(context: Tensor, context_actions: Actions, actions: Actions) -> Tensor:
        latents, state = world.encode(context)
        chunks = whole_chunks(actions, world.codec.temporal_patch)
        vectors = _vectors(world, Actions.cat([context_actions, chunks], 1))
        first, length = latents.shape[1], vectors.shape[1]
        num_given, clip = fitting_prefix(world, prefix), clip_frames(world)
        generator = torch.Generator().manual_seed(seed)
        while latents.shape[1] < length:
            start = latents.shape[1] - num_given
            part = vectors[:, start : start + clip]
            new = denoise_clip(world, latents[:, -num_given:], part, num_steps, shift, generator)
            latents = torch.cat([latents, world.codec.advance_state_channels(latents[:, -1], new)], dim=1)
        return world.decode(latents[:, first:], state)[0].cpu()[:, : actions.num_frames]

    return generate


def clip_frames(world: World) -> int:
    """Return the length of a teacher's clip in latents: the student's window and one chunk."""
    return world.transformer.config.window_frames + world.transformer.config.chunk_frames


def fitting_prefix(world: World, prefix: int | None = None) -> int:
    """Return `prefix` limited to the window, so that at least one chunk of the teacher's clip is generated.

    Without `prefix`: eight latents, or half of a shorter clip, in whole chunks.
    """
    config = world.transformer.config
    if prefix is None:
        half = clip_frames(world) // 2
        prefix = min(TEACHER_PREFIX, half - half % config.chunk_frames)
    return max(config.chunk_frames, min(prefix, config.window_frames))


@torch.inference_mode()
def denoise_clip(
    world: World, prefix: Tensor, actions: Tensor, num_steps: int, shift: float, generator: torch.Generator
) -> Tensor:
    """Return latents `b f−p c h w` that follow a clean prefix `b p c h w` under action vectors `b f a`.

    Computed on the world's device; the noise is drawn on the CPU, so it is the same on all devices.
    """
    b, p = prefix.shape[:2]
    f = actions.shape[1]
    x = torch.randn((b, f - p, *prefix.shape[2:]), generator=generator).to(world.device)
    sigmas = sampling_sigmas(num_steps, shift).float()
    level = torch.zeros(b, f, device=world.device)
    cond = Conditioning(actions=actions.to(world.device))
    for sigma, sigma_next in pairwise(sigmas):
        level[:, p:] = sigma
        output = world.transformer(torch.cat([prefix, x], 1), level, cond)
        x = euler_step(x, output.prediction[:, p:].float(), sigma, sigma_next)
    return x


@torch.inference_mode()
def reconstruct(world: World, frames: Tensor) -> Tensor:
    """Pass clips uint8 `b t h w 3` through the codec and back; drop last frames that do not fill a latent.

    Clips may be long: they are processed one at a time, and in pieces if the codec works frame by frame.
    """
    patch = world.codec.temporal_patch
    num = frames.shape[1] - (frames.shape[1] - 1) % patch
    clips = []
    for clip in frames[:, :num].split(1):
        pieces = clip.split(250 if patch == 1 else num, dim=1)
        rebuilt = [world.decode(world.encode(piece)[0], world.codec.initial_state(1))[0].cpu() for piece in pieces]
        clips.append(torch.cat(rebuilt, dim=1))
    return torch.cat(clips)


def copy_last(starts: Starts) -> Tensor:
    """Repeat the last context picture: the baseline that any world must beat."""
    return starts.context[:, -1:].expand_as(starts.truth)


def in_batches(generator: Generator, starts: Starts, actions: Actions, size: int = 64) -> Tensor:
    """Generate from all starts, `size` at a time."""
    parts = []
    for first in range(0, len(starts), size):
        rows = slice(first, first + size)
        parts.append(generator(starts.context[rows], starts.context_actions[rows], actions[rows]))
    return torch.cat(parts)


def whole_chunks(actions: Actions, size: int) -> Actions:
    """Return actions `b f` with the last one repeated until `size` divides their number."""
    missing = -actions.num_frames % size
    return Actions.cat([actions, actions.repeat(missing)], 1) if missing else actions


def _vectors(world: World, actions: Actions) -> Tensor:
    return action_vectors(actions, world.codec.temporal_patch).to(world.device)
