"""The past that a causal student is given in training. Owns how it is worn and the noise levels' draw; no loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data.latents import Clips
from distill.methods.sampling import faded, first_frames, logit_normal_sigma, randn_like
from distill.methods.teacher_forcing import self_resampled
from world.model.patterns import TeacherForcing
from world.model.schedule import shift_sigma
from world.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelConfig:
    """Noise levels in training: logit-normal of this width, shifted towards 1."""

    std: float = 1.2
    shift: float = 6.0

    def draw(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """A level of its own for each frame of clips `b f …`: `b f`."""
        b, f = clips.shape[:2]
        return shift_sigma(logit_normal_sigma(b * f, generator, std=self.std), self.shift).view(b, f)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextCorruption:
    """What has become of the past that a causal student is given in training, so that it bears what it will meet.

    resampled_share: of the clips, whose past is the student's own one-step prediction of it, made anew from its own
    result up to `resampled_rounds` times (drawn for each step).
    faded_share: of the clips, part of whose past has faded.
    lost_share: of the clips, the pictures of whose first frames, a random number of them, show nothing (0): what is
    kept track of must do, so that a world finds back from pictures that have become anything.
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
    """The clips `b f c h w` as context: the first of them as `network` itself predicts them, the pictures of any of
    them faded or lost."""
    num = round(config.resampled_share * len(batch.latents))
    own, actions = batch.past[:num], batch.actions[:num]
    if num > 0:
        for _ in range(int(torch.randint(1, config.resampled_rounds + 1, (1,), generator=generator))):
            noise, sigma = randn_like(own, generator), levels.draw(own, generator)
            own = self_resampled(network, batch.latents[:num], noise, sigma, actions, pattern, past=own)
            if batch.codec is not None:
                own = torch.cat([own[:, :1], batch.codec.advance_state_channels(own[:, 0], own[:, 1:])], dim=1)
    given = torch.cat([own, batch.past[num:]])
    own_channels = given.shape[2] if batch.codec is None else batch.codec.config.channels
    picture, state_variables = given[:, :, :own_channels], given[:, :, own_channels:]
    picture = faded(picture, config.faded_share, generator)
    if config.lost_share:
        picture = picture * ~first_frames(len(picture), picture.shape[1], config.lost_share, generator)
    return torch.cat([picture, state_variables], dim=2)


def context_levels(batch: int, num_frames: int, maximum: float, generator: torch.Generator) -> Tensor:
    """`b f`: one uniform level per sample on half of the samples, 0 on the others."""
    level = torch.rand(batch, 1, generator=generator) * maximum
    noised = torch.rand(batch, 1, generator=generator) < 0.5
    return (level * noised).expand(batch, num_frames)
