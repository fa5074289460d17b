"""Self-Forcing and long tuning as a task. Owns rollouts, draws, network roles and the order of updates; the losses are
in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.data.latents import ClipSource
from distill.data.rollout_buffer import RolloutBuffer
from distill.methods.adversarial import generator_loss
from distill.methods.distribution_matching import critic_loss, dmd_gradient, dmd_loss
from distill.methods.f_distill import DivergenceWeights, FDistillConfig
from distill.methods.flow_matching import frame_levels
from distill.methods.network import Network
from distill.methods.sampling import by_chunk, num_chunks, randn_like, uniform_sigma
from distill.methods.self_rollout import RollingCache, context_frames, self_rollout
from distill.methods.teacher_forcing import CleanPastNetwork
from distill.tasks.critic import AdversarialConfig, critic_with_head, frozen_weights
from distill.tasks.dmd import check_divergence
from distill.training.precision import autocast
from world.model.patterns import TeacherForcing
from world.model.schedule import add_noise, sampling_sigmas
from world.model.transformer import Conditioning, Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfForcingConfig:
    """Distribution matching on rollouts. Each step extends `batch_size` rollouts by a number of frames drawn from
    `new_frames` (from, to); a rollout that has reached its length, at most `rollout_frames`, starts again from data.

    causal_scores: teacher and critic are causal networks and score each new frame given the frames before it, at a
    level drawn per chunk; otherwise they are bidirectional and score a clip.
    adversarial: a GAN branch on the bidirectional critic; None for none. divergence: of f-distill (arXiv:2502.15681),
    instead of the reverse KL; it reads the density ratio off that branch.
    num_steps, shift: the student's levels, which are also the world's sampler's. sigma_range, sigma_shift: levels at
    which teacher and critic are compared. critic_lr_share: the critic's learning rate, as a multiple of the student's.
    critic_updates: per update of the student. fresh_rollouts: each critic update is made on rollouts of its own, with
    the student as it then is; otherwise on those of the student's update, which saves a rollout each time.
    context_sigma: level that generated frames are noised to in the cache.

    The defaults are those of the official code (github.com/guandeh17/Self-Forcing, 2e-6 for the student and 4e-7 for
    the critic) except for `num_steps` (there 4) and the shifts (there 5).
    """

    batch_size: int = 16
    num_steps: int = 2
    shift: float = 6.0
    rollout_frames: int = 120
    new_frames: tuple[int, int] = (4, 10)
    causal_scores: bool = False
    sigma_range: tuple[float, float] = (0.02, 0.98)
    sigma_shift: float = 6.0
    critic_lr_share: float = 0.2
    critic_updates: int = 5
    fresh_rollouts: bool = True
    context_sigma: float = 0.0
    adversarial: AdversarialConfig | None = None
    divergence: FDistillConfig | None = None

    def __post_init__(self) -> None:
        check_divergence(self.divergence, self.adversarial)
        if self.causal_scores and self.adversarial is not None:
            raise ValueError("the GAN branch scores whole clips: leave out `causal_scores` or `adversarial`")


@dataclass(frozen=True, slots=True)
class Scored:
    """Clips x `b f c h w` of rollouts, their actions `b f a`, and the frames that are scored, bool `b f`."""

    x: Tensor
    actions: Tensor
    frames: Tensor

    @property
    def cond(self) -> Conditioning:
        return Conditioning(actions=self.actions)


class SelfForcingTask:
    """Self-Forcing (arXiv:2506.08009) and long tuning (arXiv:2509.22622): the student generates frames through its
    rolling window; teacher and critic give the DMD gradient.

    Bidirectional networks score the last clip of the teacher's length after a clean prefix of random length; causal
    ones score the new frames. head: maps features of the critic's tokens to logits; for a GAN branch.
    """

    averaged = "student"

    def __init__(
        self,
        student: Transformer,
        teacher: Transformer,
        clips: ClipSource,
        config: SelfForcingConfig,
        *,
        head: nn.Module | None = None,
    ) -> None:
        if config.new_frames[1] > student.config.window_frames:
            raise ValueError(
                f"new_frames {config.new_frames} exceed the window of {student.config.window_frames} frames"
            )
        critic = critic_with_head(teacher, head, config.adversarial)
        rollouts = RolloutBuffer(student.config, clips, config.batch_size)
        self.divergence = None if config.divergence is None else DivergenceWeights(config.divergence)
        self.modules: Mapping[str, nn.Module] = {"student": student, "critic": critic, "rollouts": rollouts}
        if self.divergence is not None:
            self.modules = {**self.modules, "divergence": self.divergence}
        self.optimised = {"student": 1.0, "critic": config.critic_lr_share}
        self.student, self.critic, self.teacher = student, critic, teacher.requires_grad_(False)
        self.rollouts, self.clips = rollouts, clips
        self.sigmas = sampling_sigmas(config.num_steps, config.shift).float()
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        scored = self._rollout(generator)
        yield "student", *self._student_loss(scored, generator)
        for _ in range(self.config.critic_updates):
            if self.config.fresh_rollouts:
                with torch.no_grad():
                    scored = self._rollout(generator)
            yield "critic", self._critic_loss(scored, generator), {}

    def _student_loss(self, scored: Scored, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x, frames, cond = scored.x, scored.frames, scored.cond
        teacher, critic = self._score(self.teacher, x), self._score(self.critic.network, x)
        noise, sigma = randn_like(x, generator), self._sigma(frames, generator)
        branch, weight, adversarial = self.config.adversarial, None, x.new_zeros(())
        if branch is not None:
            with frozen_weights(self.critic):
                logits = self._logits(x, noise, sigma, frames, cond)
            adversarial = branch.student_weight * generator_loss(logits)
            if self.divergence is not None:
                weight = self.divergence(logits, sigma)
        with autocast(self.student):
            gradient = dmd_gradient(teacher, critic, x.detach(), noise, sigma, frames, cond, weight=weight)
        return dmd_loss(x, gradient, frames) + adversarial, {"dmd_gradient": float(gradient.abs().mean())}

    def _critic_loss(self, scored: Scored, generator: torch.Generator) -> Tensor:
        x, frames, cond = scored.x.detach(), scored.frames, scored.cond
        noise, sigma = randn_like(x, generator), self._sigma(frames, generator)
        with autocast(self.student):
            loss = critic_loss(self._score(self.critic.network, x), x, noise, sigma, frames, cond)
        branch = self.config.adversarial
        if branch is None:
            return loss
        fake = self._logits(x, noise, sigma, frames, cond)
        return loss + self._discriminator_loss(fake, sigma, frames, branch, generator)

    def _discriminator_loss(
        self, fake: Tensor, sigma: Tensor, frames: Tensor, branch: AdversarialConfig, generator: torch.Generator
    ) -> Tensor:
        """Return the discriminator's loss: logits of rollouts against clips of data, noised at the same levels."""
        clips, length, level = self.clips.draw(len(fake), generator), frames.shape[1], frame_levels(sigma, frames)
        real, cond = clips.latents[:, -length:], Conditioning(actions=clips.actions[:, -length:])
        noised = add_noise(real, randn_like(real, generator), level)
        return self.critic.weighted_discriminator_loss(noised, fake, level, cond, branch, generator)

    def _logits(self, x: Tensor, noise: Tensor, sigma: Tensor, frames: Tensor, cond: Conditioning) -> Tensor:
        level = frame_levels(sigma, frames)
        return self.critic.logits(add_noise(x, noise, level), level, cond)

    def _score(self, network: nn.Module, x: Tensor) -> Network:
        """Return teacher or critic as the network that scores the clips x."""
        if not self.config.causal_scores:
            return network
        return CleanPastNetwork(network, x.detach(), TeacherForcing(self.student.config, x.shape[1]))

    def _rollout(self, generator: torch.Generator) -> Scored:
        """Extend the rollouts. The new frames carry gradient."""
        config, network, chunk = self.config, self.student, self.student.config.chunk_frames
        low, high = (frames // chunk for frames in config.new_frames)
        num_new = chunk * int(torch.randint(low, high + 1, (1,), generator=generator))
        exit_stage = int(torch.randint(config.num_steps, (1,), generator=generator))
        past, actions = self.rollouts.next(num_new, generator)
        before, after = actions.split([past.shape[1], num_new], dim=1)
        with autocast(self.student):
            context, level = context_frames(past, config.context_sigma, generator)
            cache = RollingCache.prefill(network, network.config, context, before, level)
            new = self_rollout(
                network, cache, after, self.sigmas, exit_stage, generator, context_sigma=config.context_sigma
            )
        self.rollouts.extend(new.detach())
        x = torch.cat([past, new], dim=1)
        if config.causal_scores:
            return Scored(x, actions, (torch.arange(x.shape[1]) >= past.shape[1]).expand(len(x), -1))
        window = past.shape[1] + chunk
        prefix = chunk * int(torch.randint(1, (window - num_new) // chunk + 1, (1,), generator=generator))
        frames = torch.arange(window).expand(len(past), -1) >= prefix
        return Scored(x[:, -window:], actions[:, -window:], frames)

    def _sigma(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Draw noise levels: one per clip for bidirectional scores, one per chunk for causal ones."""
        low, high = self.config.sigma_range
        b, f, chunk = *frames.shape, self.student.config.chunk_frames
        num = b * num_chunks(f, chunk) if self.config.causal_scores else b
        sigma = uniform_sigma(num, generator, low=low, high=high, shift=self.config.sigma_shift)
        return by_chunk(sigma.view(b, -1), chunk) if self.config.causal_scores else sigma
