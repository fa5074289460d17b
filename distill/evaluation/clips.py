"""Held-out starts to continue from, and who continues them. Owns the draw of starts and the two generators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from distill.clips import Dataset
from world.actions import Actions
from world.rollout import action_vectors
from world.schedule import euler_step, sampling_sigmas
from world.transformer import Conditioning
from world.world import World

Generator = Callable[[Tensor, Actions, Actions], Tensor]
"""(context frames uint8 `b t h w 3`, their actions `b t`, actions to follow `b f`) → frames uint8 `b f h w 3`."""


@dataclass(frozen=True, slots=True)
class Starts:
    """Held-out clips: context to continue from and what truly followed."""

    context: Tensor
    context_actions: Actions
    truth: Tensor
    actions: Actions
    oracle: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.context)

    def head(self, num: int) -> Starts:
        rows = slice(0, num)
        return Starts(
            self.context[rows], self.context_actions[rows], self.truth[rows], self.actions[rows], self.oracle[rows]
        )

    def shuffled_actions(self) -> Actions:
        """Every start with another clip's actions."""
        return self.actions[torch.arange(len(self)).roll(len(self) // 2)]


def held_out_starts(dataset: Dataset, num: int, context_frames: int, num_frames: int, *, seed: int = 0) -> Starts:
    """`num` starts spread evenly over the held-out episodes, at random places that a game's end does not cut."""
    rng = np.random.default_rng(seed)
    episodes = list(dataset.episodes("heldout"))
    rows = []
    for number in range(num):
        episode = episodes[number % len(episodes)]
        first = int(rng.integers(1, len(episode) - context_frames - num_frames))
        rows.append((episode, slice(first, first + context_frames), first + context_frames, num_frames))
    ahead = [(episode, slice(split, split + count)) for episode, _, split, count in rows]
    return Starts(
        torch.from_numpy(np.stack([episode.frames[part] for episode, part, _, _ in rows])),
        Actions.cat([_actions(episode.buttons, episode.axes, part) for episode, part, _, _ in rows]),
        torch.from_numpy(np.stack([episode.frames[part] for episode, part in ahead])),
        Actions.cat([_actions(episode.buttons, episode.axes, part) for episode, part in ahead]),
        np.stack([episode.oracle[part] for episode, part in ahead]),
    )


def _actions(buttons: NDArray[np.bool_], axes: NDArray[np.float32], part: slice) -> Actions:
    return Actions(torch.from_numpy(buttons[part])[None], torch.from_numpy(axes[part])[None])


def student_generator(world: World, *, seed: int = 0, quiet: bool = True) -> Generator:
    """The student as it is served: chunk by chunk through the rolling cache."""

    def generate(context: Tensor, context_actions: Actions, actions: Actions) -> Tensor:
        rollout = world.start(context, context_actions, seed)
        size = world.chunk_pixel_frames
        parts = [
            rollout.step(actions.frames(first, first + size))
            for first in tqdm(range(0, actions.num_frames, size), disable=quiet)
        ]
        return torch.cat(parts, dim=1)

    return generate


def teacher_generator(world: World, *, num_steps: int, shift: float, prefix: int = 4, seed: int = 0) -> Generator:
    """The bidirectional teacher, clip by clip: `prefix` latents are given, the rest of a clip is denoised from noise by
    `num_steps` Euler steps; its end is the next clip's prefix."""

    @torch.inference_mode()
    def generate(context: Tensor, context_actions: Actions, actions: Actions) -> Tensor:
        latents, state = world.encode(context)
        vectors = action_vectors(Actions.cat([context_actions, actions], 1), world.codec.config.temporal_patch)
        first, length = latents.shape[1], vectors.shape[1]
        clip = world.transformer.config.window_frames + 1
        generator = torch.Generator().manual_seed(seed)
        while latents.shape[1] < length:
            start = latents.shape[1] - prefix
            part = vectors[:, start : start + clip]
            new = denoise_clip(world, latents[:, -prefix:], part, num_steps, shift, generator)
            latents = torch.cat([latents, new], dim=1)
        return world.decode(latents[:, first:], state)[0]

    return generate


@torch.inference_mode()
def denoise_clip(
    world: World, prefix: Tensor, actions: Tensor, num_steps: int, shift: float, generator: torch.Generator
) -> Tensor:
    """Latents `b f−p c h w` that follow a clean prefix `b p c h w` under action vectors `b f a`."""
    b, p = prefix.shape[:2]
    f = actions.shape[1]
    x = torch.randn((b, f - p, *prefix.shape[2:]), generator=generator)
    sigmas = sampling_sigmas(num_steps, shift).float()
    level = torch.zeros(b, f)
    for sigma, sigma_next in pairwise(sigmas):
        level[:, p:] = sigma
        output = world.transformer(torch.cat([prefix, x], 1), level, Conditioning(actions=actions))
        x = euler_step(x, output.prediction[:, p:].float(), sigma, sigma_next)
    return x


def in_batches(generator: Generator, starts: Starts, actions: Actions, size: int = 64) -> Tensor:
    """Run a generator over all starts, `size` at a time."""
    parts = []
    for first in range(0, len(starts), size):
        rows = slice(first, first + size)
        parts.append(generator(starts.context[rows], starts.context_actions[rows], actions[rows]))
    return torch.cat(parts)
