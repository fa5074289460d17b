"""CausVid as a task. Owns draws, network roles and the order of updates; the losses are in `methods`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.data.latents import ClipSource
from distill.methods.causvid import causvid_samples
from distill.methods.distribution_matching import critic_loss, dmd_gradient, dmd_loss
from distill.methods.sampling import (
    by_chunk,
    generated_frames,
    num_chunks,
    prefix_lengths,
    randn_like,
    uniform_sigma,
)
from distill.training.precision import autocast
from world.model.patterns import Banded
from world.model.schedule import sampling_sigmas
from world.model.transformer import Conditioning, Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class CausVidConfig:
    """num_steps, shift: the student's noise levels. sigma_range, sigma_shift: levels at which teacher and critic are
    compared. critic_lr_share: the critic's learning rate, as a multiple of the student's. critic_updates: per update of
    the student, each on samples of its own.

    The defaults are those of the official code (github.com/tianweiy/CausVid) except for `num_steps` (there 3) and the
    shifts (there 8).
    """

    batch_size: int = 12
    num_steps: int = 2
    shift: float = 6.0
    sigma_range: tuple[float, float] = (0.02, 0.98)
    sigma_shift: float = 6.0
    critic_lr_share: float = 1.0
    critic_updates: int = 5


class CausVidTask:
    """CausVid (arXiv:2412.07772): the student denoises noised data after a clean prefix; a bidirectional teacher and
    critic give the DMD gradient. The critic starts as the teacher."""

    averaged = "student"

    def __init__(self, student: Transformer, teacher: Transformer, clips: ClipSource, config: CausVidConfig) -> None:
        critic = copy.deepcopy(teacher).requires_grad_(True)
        self.modules: Mapping[str, nn.Module] = {"student": student, "critic": critic}
        self.optimised = {"student": 1.0, "critic": config.critic_lr_share}
        self.student, self.critic, self.teacher = student, critic, teacher.requires_grad_(False)
        self.pattern = Banded(student.config, tuple(range(clips.num_frames)))
        self.levels = sampling_sigmas(config.num_steps, config.shift).float()
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        x, frames, cond = self._samples(generator)
        noise, sigma = randn_like(x, generator), self._sigma(len(x), generator)
        with autocast(self.student):
            gradient = dmd_gradient(self.teacher, self.critic, x.detach(), noise, sigma, frames, cond)
        yield "student", dmd_loss(x, gradient, frames), {"dmd_gradient": float(gradient.abs().mean())}
        for _ in range(self.config.critic_updates):
            with torch.no_grad():
                x, frames, cond = self._samples(generator)
            noise, sigma = randn_like(x, generator), self._sigma(len(x), generator)
            with autocast(self.student):
                loss = critic_loss(self.critic, x, noise, sigma, frames, cond)
            yield "critic", loss, {}

    def _samples(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Conditioning]:
        """Return the student's clips `b f c h w`, the frames after their prefixes, bool `b f`, and their conditioning.

        Each chunk of these frames has a level of the student's grid, which ends in 0, where the chunk is data.
        """
        batch = self.clips.draw(self.config.batch_size, generator)
        x0, chunk = batch.latents, self.student.config.chunk_frames
        b, f = x0.shape[:2]
        frames = generated_frames(prefix_lengths(b, f, chunk, generator), f)
        index = torch.randint(len(self.levels), (b, num_chunks(f, chunk)), generator=generator)
        level = by_chunk(self.levels[index], chunk) * frames
        with autocast(self.student):
            x = causvid_samples(self.student, x0, randn_like(x0, generator), level, batch.actions, self.pattern)
        return x, frames, Conditioning(actions=batch.actions)

    def _sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        low, high = self.config.sigma_range
        return uniform_sigma(batch, generator, low=low, high=high, shift=self.config.sigma_shift)
