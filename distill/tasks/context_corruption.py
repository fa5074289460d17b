"""Corrupt the past that a causal student is conditioned on in training. Owns corruptions and noise levels; no loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data.latents import Clips
from distill.methods.sampling import by_chunk, faded, first_frames, logit_normal_sigma, num_chunks, randn_like
from distill.methods.teacher_forcing import self_resampled
from world.model.patterns import TeacherForcing
from world.model.schedule import shift_sigma
from world.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelConfig:
    """Distribution of noise levels in training: logit-normal with this width, shifted towards 1."""

    std: float = 1.2
    shift: float = 6.0

    def draw(self, clips: Tensor, chunk: int, generator: torch.Generator) -> Tensor:
        """Draw a level for each chunk of clips `b f …`: `b f`, the same for the frames of a chunk."""
        b, n = len(clips), num_chunks(clips.shape[1], chunk)
        levels = shift_sigma(logit_normal_sigma(b * n, generator, std=self.std), self.shift)
        return by_chunk(levels.view(b, n), chunk)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextCorruption:
    """How often the past is corrupted in training, so that a student copes with the errors of its own rollouts.

    resampled_share: share of clips whose past is the student's one-step prediction of it, predicted again from its
    result up to `resampled_rounds` times (a number drawn for each step).
    faded_share: share of clips in which part of the past has faded.
    lost_share: share of clips in which the pictures of a random number of first frames are zero. Only the state
    channels remain, so that a world learns to recover from pictures that have become useless.
    """

    resampled_share: float = 0.5
    resampled_rounds: int = 3
    faded_share: float = 0.5
    lost_share: float = 0.0


NO_CORRUPTION = ContextCorruption(resampled_share=0.0, faded_share=0.0)


def corrupt_context(
    network: Transformer,
    batch: Clips,
    pattern: TeacherForcing,
    levels: LevelConfig,
    config: ContextCorruption,
    generator: torch.Generator,
) -> Tensor:
    """Return the clips `b f c h w` as a corrupted context: the first ones as `network` predicts them, then the pictures
    of any of them faded or lost. State channels are never faded or lost."""
    num = round(config.resampled_share * len(batch.latents))
    resampled, actions = batch.past[:num], batch.actions[:num]
    if num > 0:
        for _ in range(int(torch.randint(1, config.resampled_rounds + 1, (1,), generator=generator))):
            noise = randn_like(resampled, generator)
            sigma = levels.draw(resampled, pattern.config.chunk_frames, generator)
            resampled = self_resampled(network, batch.latents[:num], noise, sigma, actions, pattern, past=resampled)
            if batch.codec is not None:
                advanced = batch.codec.advance_state_channels(resampled[:, 0], resampled[:, 1:])
                resampled = torch.cat([resampled[:, :1], advanced], dim=1)
    past = torch.cat([resampled, batch.past[num:]])
    picture_channels = past.shape[2] if batch.codec is None else batch.codec.config.channels
    picture, state = past[:, :, :picture_channels], past[:, :, picture_channels:]
    picture = faded(picture, config.faded_share, generator)
    if config.lost_share:
        picture = picture * ~first_frames(len(picture), picture.shape[1], config.lost_share, generator)
    return torch.cat([picture, state], dim=2)


def context_levels(batch: int, num_frames: int, maximum: float, generator: torch.Generator) -> Tensor:
    """Draw noise levels of the context, `b f`: one uniform level per sample on half of the samples, 0 on the others."""
    level = torch.rand(batch, 1, generator=generator) * maximum
    noised = torch.rand(batch, 1, generator=generator) < 0.5
    return (level * noised).expand(batch, num_frames)
