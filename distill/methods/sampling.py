"""Shared draws: noise levels, prefixes, noise, a student's samples. Owns the distributions; every draw takes its
generator."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.methods.network import Network, predict_velocity, predict_x0
from world.model.schedule import add_noise, euler_step, shift_sigma
from world.model.transformer import Conditioning


def logit_normal_sigma(batch: int, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """sigma = sigmoid(N(mean, std²)) (arXiv:2403.03206, eq. 19): `b`."""
    return torch.sigmoid(torch.randn(batch, generator=generator) * std + mean)


def uniform_sigma(batch: int, generator: torch.Generator, *, low: float, high: float, shift: float = 1.0) -> Tensor:
    """A shifted uniform level, clamped to [low, high]: `b`."""
    return shift_sigma(torch.rand(batch, generator=generator), shift).clamp(low, high)


def prefix_lengths(batch: int, num_frames: int, chunk: int, generator: torch.Generator) -> Tensor:
    """How many frames of a clip are given clean: whole chunks, at least one, leaving at least one. int64 `b`."""
    num_chunks = num_frames // chunk
    return chunk * torch.randint(1, num_chunks, (batch,), generator=generator)


def generated_frames(prefix: Tensor, num_frames: int) -> Tensor:
    """bool `b f`: True where the frame comes after the prefix."""
    return torch.arange(num_frames)[None, :] >= prefix[:, None]


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    return torch.randn(x.shape, generator=generator, dtype=dtype).to(x.device, x.dtype)


def sampled(network: Network, noise: Tensor, cond: Conditioning, levels: Tensor, generator: torch.Generator) -> Tensor:
    """A few-step student's samples `b …`: x0, then fresh noise at the next level (arXiv:2303.01469, algorithm 1).
    levels: falling, from 1 to 0."""
    x, x0 = noise, noise
    for i in range(len(levels) - 1):
        level = levels[i].to(noise).expand(len(noise))
        if i > 0:
            x = add_noise(x0, randn_like(noise, generator), level)
        x0 = predict_x0(network, x, level, cond)
    return x0


@torch.no_grad()
def integrated(
    network: Network, noise: Tensor, cond: Conditioning, levels: Tensor, *, flow_map: bool = False
) -> Tensor:
    """Samples `b …` by Euler steps along the network's velocity; a flow map's velocity, asked for with the level that
    it goes to, makes each step exact (arXiv:2505.13447, eq. 12). levels: falling, from 1 to 0."""
    x = noise
    for i in range(len(levels) - 1):
        now, after = (level.to(noise).expand(len(noise)) for level in (levels[i], levels[i + 1]))
        x = euler_step(x, predict_velocity(network, x, now, cond, sigma_next=after if flow_map else None), now, after)
    return x


def frame_mean(values: Tensor, frames: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of `b f …` over the frames where bool `b f` is True; weights: `b f 1 h w`, see `motion_weights`."""
    per_frame = (values if weights is None else values * weights).flatten(2).mean(-1)
    return (per_frame * frames).sum() / frames.sum().clamp_min(1)


def motion_weights(x0: Tensor, change: float, rest: float = 0.0) -> Tensor:
    """Weight of each position of clips `b f c h w`: 1 + change where it differs from the frame before or after by one
    standard deviation of the latents or more, + rest where it differs so from the still background (which is 0, see
    `world.codecs.convolutional`); less below; mean 1. `b f 1 h w`.

    A ball is one position of thirty: unweighted, its motion is the last thing that is learned. A paddle parked at the
    edge is one position that does not even move: it is forgotten.
    """
    step = (x0[:, 1:] - x0[:, :-1]).abs().amax(dim=2, keepdim=True).clamp(max=1.0)
    still = torch.zeros_like(step[:, :1])
    moved = torch.maximum(torch.cat([still, step], 1), torch.cat([step, still], 1))
    there = x0.abs().amax(dim=2, keepdim=True).clamp(max=1.0)
    weights = 1 + change * moved + rest * there
    return weights / weights.mean()


def first_frames(batch: int, num_frames: int, share: float, generator: torch.Generator) -> Tensor:
    """bool `b f 1 1 1`: on a `share` of the clips the first frames, evenly 1 to all of them; none on the others."""
    chosen = torch.rand(batch, generator=generator) < share
    num = torch.randint(1, num_frames + 1, (batch,), generator=generator) * chosen
    return (torch.arange(num_frames) < num[:, None])[:, :, None, None, None]


def faded(clips: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Clips `b f c h w`, a `share` of which has faded: in some rows or some columns, over a stretch of frames that on
    half of them starts with the clip, what differs from the still background (0) is down to 0.1 … 1 of itself.

    What a student lets grow a little fainter has no counterpart in data, so it is taken for what it looks like and
    handed on; where fading is part of the given past, the student learns to restore.
    """
    b, f, _, h, w = clips.shape

    def stretch(size: int) -> Tensor:
        ends = torch.randint(size, (b, 2), generator=generator).sort(dim=1).values
        index = torch.arange(size)
        return (index >= ends[:, :1]) & (index <= ends[:, 1:])

    frames, rows, columns = stretch(f), stretch(h), stretch(w)
    begins = frames.long().argmax(dim=1, keepdim=True) > torch.arange(f)
    frames = frames | (begins & (torch.rand(b, 1, generator=generator) < 0.5))
    across = torch.rand(b, 1, 1, generator=generator) < 0.5
    where = frames[:, :, None, None] & torch.where(across, rows[:, :, None], columns[:, None, :])[:, None]
    chosen = torch.rand(b, generator=generator) < share
    strength = 0.1 + 0.9 * torch.rand(b, generator=generator)
    factor = 1 - (1 - strength)[:, None, None, None] * (where & chosen[:, None, None, None])
    return clips * factor[:, :, None]
