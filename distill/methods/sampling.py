"""Draws shared by the methods: noise levels, prefixes, noise, a student's samples. Every draw takes its generator."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.methods.network import Network, predict_velocity, predict_x0
from world.model.schedule import add_noise, euler_step, shift_sigma
from world.model.transformer import Conditioning


def logit_normal_sigma(batch: int, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Draw sigma = sigmoid(N(mean, std²)), `b` (arXiv:2403.03206, eq. 19)."""
    return torch.sigmoid(torch.randn(batch, generator=generator) * std + mean)


def uniform_sigma(batch: int, generator: torch.Generator, *, low: float, high: float, shift: float = 1.0) -> Tensor:
    """Draw shifted uniform levels, clamped to [low, high]: `b`."""
    return shift_sigma(torch.rand(batch, generator=generator), shift).clamp(low, high)


def prefix_lengths(batch: int, num_frames: int, chunk: int, generator: torch.Generator) -> Tensor:
    """Draw the number of clean frames at the start of each clip: whole chunks, neither none nor all. int64 `b`."""
    return chunk * torch.randint(1, num_chunks(num_frames, chunk), (batch,), generator=generator)


def generated_frames(prefix: Tensor, num_frames: int) -> Tensor:
    """Return a mask, bool `b f`: True for frames after the prefix."""
    return torch.arange(num_frames)[None, :] >= prefix[:, None]


def num_chunks(num_frames: int, chunk: int) -> int:
    """Return how many chunks a clip has. Raises ValueError unless it consists of whole chunks."""
    if num_frames % chunk:
        raise ValueError(f"clips of {num_frames} frames are not whole chunks of {chunk}: choose a multiple of {chunk}")
    return num_frames // chunk


def by_chunk(values: Tensor, chunk: int) -> Tensor:
    """Return the frames' values `b n·chunk …` from those of their chunks `b n …`.

    Frames of a chunk are denoised together, so they have one noise level (CausVid, arXiv:2412.07772, algorithm 1).
    """
    return values.repeat_interleave(chunk, dim=1)


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw noise with the shape, type and device of x; drawn on the CPU, so it is the same on every device."""
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    return torch.randn(x.shape, generator=generator, dtype=dtype).to(x.device, x.dtype)


def sampled(network: Network, noise: Tensor, cond: Conditioning, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a few-step student's samples `b …`: predict x0, renoise to the next level (arXiv:2303.01469, algorithm 1).

    levels: falling from 1 to 0.
    """
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
    """Return samples `b …` by Euler steps along the network's velocity.

    flow_map: pass the next level to the network, whose mean velocity then makes each step exact (arXiv:2505.13447,
    eq. 12). levels: falling from 1 to 0.
    """
    x = noise
    for i in range(len(levels) - 1):
        now, after = (level.to(noise).expand(len(noise)) for level in (levels[i], levels[i + 1]))
        x = euler_step(x, predict_velocity(network, x, now, cond, sigma_next=after if flow_map else None), now, after)
    return x


def frame_mean(values: Tensor, frames: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of `b f …` over the frames selected by bool `b f`; weights `b f 1 h w`: see `motion_weights`."""
    per_frame = (values if weights is None else values * weights).flatten(2).mean(-1)
    return (per_frame * frames).sum() / frames.sum().clamp_min(1)


def motion_weights(x0: Tensor, change: float, rest: float = 0.0) -> Tensor:
    """Return a loss weight for each position of clips `b f c h w`: `b f 1 h w`, mean 1.

    Before normalisation a weight is 1 + change·m + rest·d. m is the difference from the previous or next frame,
    whichever is larger; d is the difference from the still background, which is 0 (see `world.codecs.convolutional`).
    Both are in standard deviations of the latents, clipped to 1.

    A ball is one position of thirty: without weights its motion is learned last. A paddle resting at the edge is one
    position that does not even move: without weights it is forgotten.
    """
    step = (x0[:, 1:] - x0[:, :-1]).abs().amax(dim=2, keepdim=True).clamp(max=1.0)
    still = torch.zeros_like(step[:, :1])
    moved = torch.maximum(torch.cat([still, step], 1), torch.cat([step, still], 1))
    different = x0.abs().amax(dim=2, keepdim=True).clamp(max=1.0)
    weights = 1 + change * moved + rest * different
    return weights / weights.mean()


def first_frames(batch: int, num_frames: int, share: float, generator: torch.Generator) -> Tensor:
    """Return a mask, bool `b f 1 1 1`, of the first frames on a `share` of the clips: 1 to all of them, uniformly."""
    chosen = torch.rand(batch, generator=generator) < share
    num = torch.randint(1, num_frames + 1, (batch,), generator=generator) * chosen
    return (torch.arange(num_frames) < num[:, None])[:, :, None, None, None]


def faded(clips: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return clips `b f c h w` of which a `share` has faded in part.

    In some rows or some columns, over a stretch of frames (on half of the clips from the first frame on), the
    difference from the still background (0) is multiplied by one factor between 0.1 and 1 per clip.

    When a student draws something slightly too faint, it meets a picture that does not occur in data, takes it at face
    value and repeats it. Faded pasts in training teach the student to restore such things.
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
    region = frames[:, :, None, None] & torch.where(across, rows[:, :, None], columns[:, None, :])[:, None]
    chosen = torch.rand(b, generator=generator) < share
    strength = 0.1 + 0.9 * torch.rand(b, generator=generator)
    factor = 1 - (1 - strength)[:, None, None, None] * (region & chosen[:, None, None, None])
    return clips * factor[:, :, None]
