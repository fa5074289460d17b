"""A rollout's inputs: contexts of the right length, action vectors, noise seeds. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor

from world.actions import Actions
from world.errors import ShapeError
from world.model.config import TransformerConfig
from world.rollout.networks import Model


def check_context(model: Model, slots: Sequence[int], frames: Tensor, actions: Actions, seeds: Sequence[int]) -> None:
    """Raise ShapeError unless these can start rollouts of `model`; each needs one row per slot."""
    height, width = model.card.height, model.card.width
    fits = frames.ndim == 5 and frames.shape[1] > 0 and tuple(frames.shape[2:]) == (height, width, 3)
    if not fits or frames.dtype != torch.uint8:
        raise ShapeError(
            f"context is {frames.dtype} {tuple(frames.shape)}, expected uint8 (b, t, {height}, {width}, 3), t ≥ 1"
        )
    model.check_actions(actions)
    if (actions.batch, actions.num_frames) != tuple(frames.shape[:2]):
        raise ShapeError(f"actions are {actions.batch} x {actions.num_frames}, the context {tuple(frames.shape[:2])}")
    if not len(slots) == len(seeds) == len(frames):
        raise ShapeError(f"slots {list(slots)}, {len(seeds)} seeds and {len(frames)} contexts do not fit together")


def fit_context(frames: Tensor, actions: Actions, num_frames: int) -> tuple[Tensor, Actions]:
    """Return exactly `num_frames` pixel frames: the last ones, or the first one repeated in front with no action."""
    missing = num_frames - frames.shape[1]
    if missing <= 0:
        return frames[:, -num_frames:], actions.frames(actions.num_frames - num_frames)
    idle = Actions.none(len(frames), missing, actions.buttons.shape[2], actions.axes.shape[2])
    return torch.cat([frames[:, :1].expand(-1, missing, -1, -1, -1), frames], 1), Actions.cat([idle, actions], 1)


def action_vectors(actions: Actions, temporal_patch: int, first_frames: int = 1) -> Tensor:
    """Return one vector per latent of a clip that starts a stream: `b (first_frames + p·k)` actions → `b n (p·a)`.

    The first latent has fewer pixel frames than the others; its vector is padded in front with no action.
    """
    vectors = actions.vector()
    missing = torch.zeros_like(vectors[:, :1]).expand(-1, temporal_patch - first_frames, -1)
    padded = torch.cat([missing, vectors], dim=1)
    return rearrange(padded, "b (n p) a -> b n (p a)", p=temporal_patch)


def chunk_vectors(model: Model, actions: Actions, batch: int) -> Tensor:
    """Return the action vectors of a chunk's latents, `b f a` on the model's device, from one action per pixel frame
    or one action for all. Raises ShapeError unless there are `batch` rows of that many, ActionError if the columns
    are not this world's."""
    num_frames, p = model.chunk_pixel_frames, model.codec.temporal_patch
    model.check_actions(actions)
    if actions.batch != batch or actions.num_frames not in (1, num_frames):
        raise ShapeError(
            f"actions are {actions.batch} x {actions.num_frames}; {batch} slots need {batch} x {num_frames} (or x 1)"
        )
    held = actions.repeat(num_frames) if actions.num_frames == 1 else actions
    return held.vector().reshape(batch, num_frames // p, -1).to(model.device)  # b (f p) a -> b f (p a)


def chunk_noise(config: TransformerConfig, sessions: Iterable[tuple[int, int]], stage: int) -> Tensor:
    """Return a denoising stage's noise `b f c h w`, float32 on the CPU, for each session's (seed, chunk). Each row
    depends only on these and the stage."""
    shape = (config.chunk_frames, config.channels, config.height, config.width)
    seeds = [noise_seed(seed, chunk, stage) for seed, chunk in sessions]
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def noise_seed(seed: int, chunk: int, stage: int) -> int:
    """Mix session seed, chunk and stage to 63 bits (splitmix64's finaliser)."""
    x = (seed * 0x9E3779B97F4A7C15 + chunk * 0xBF58476D1CE4E5B9 + stage * 0x94D049BB133111EB + 1) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1
