"""Teacher forcing: one pass of a causal model denoises every chunk given the clean chunks before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.network import Network
from distill.methods.sampling import frame_mean
from world.model.patterns import AttentionPattern, TeacherForcing
from world.model.schedule import add_noise, velocity, x0_from_velocity
from world.model.transformer import Conditioning, Output


def teacher_forced_velocity(
    network: Network,
    clean: Tensor,
    noisy: Tensor,
    sigma: Tensor,
    context_sigma: Tensor,
    actions: Tensor,
    pattern: TeacherForcing,
) -> Tensor:
    """Return the velocity of every noisy frame from one pass over [clean; noisy].

    clean, noisy `b f c h w`; sigma, context_sigma `b f`: the levels of the noisy and of the clean frames.
    """
    output = network(
        torch.cat([clean, noisy], dim=1),
        torch.cat([context_sigma, sigma], dim=1),
        Conditioning(actions=torch.cat([actions, actions], dim=1)),
        pattern=pattern,
    )
    velocity = output.prediction[:, clean.shape[1] :]
    return velocity.to(torch.promote_types(velocity.dtype, torch.float32))


@dataclass(frozen=True, slots=True)
class CleanPastNetwork:
    """A causal network as a `Network` over whole clips: frame i of x `b f c h w` is denoised given `clean` before i.

    Where a bidirectional network scores a clip, this scores each frame given its past; so a causal network can be the
    teacher or the critic (as in LongLive 2).
    """

    network: Network
    clean: Tensor
    pattern: TeacherForcing

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        sigma_next: Tensor | None = None,
        pattern: AttentionPattern | None = None,
        features: tuple[int, ...] = (),
    ) -> Output:
        if cond.actions is None or pattern is not None or sigma_next is not None or features:
            raise ValueError("CleanPastNetwork takes actions, but no pattern, sigma_next or features")
        level = torch.zeros_like(sigma)
        velocity = teacher_forced_velocity(self.network, self.clean, x, sigma, level, cond.actions, self.pattern)
        return Output(velocity, [], {})


def teacher_forcing_loss(
    network: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    actions: Tensor,
    pattern: TeacherForcing,
    *,
    frames: Tensor,
    context_noise: Tensor,
    context_sigma: Tensor,
    past: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the flow-matching loss (arXiv:2210.02747, eq. 9) of each frame at its own level, given its past.

    The past is clean, or slightly noised (context_sigma; GameNGen, arXiv:2408.14837, §3.2.1). All tensors are `b f …`.
    frames bool `b f`: where the loss is taken. past: the frames to condition on, instead of x0. weights: `b f 1 h w`
    or None.
    """
    clean = add_noise(x0 if past is None else past, context_noise, context_sigma)
    predicted = teacher_forced_velocity(
        network, clean, add_noise(x0, noise, sigma), sigma, context_sigma, actions, pattern
    )
    return frame_mean((predicted - velocity(x0, noise)).square(), frames, weights)


@torch.no_grad()
def self_resampled(
    network: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    actions: Tensor,
    pattern: TeacherForcing,
    *,
    past: Tensor | None = None,
) -> Tensor:
    """Return clips predicted by the network itself: self-resampling (arXiv:2512.15702) in its parallel, one-step form.

    Every frame of x0 `b f c h w` is noised to its level `b f` and denoised in one step, given the frames of `past`
    (default: x0) before it; the first chunk, which has no past, stays unchanged. Used as the past in training, such
    clips show a student its own errors, aligned with the truth. Passed as `past` to another round, errors accumulate as
    in a rollout.
    """
    clean, noisy = x0 if past is None else past, add_noise(x0, noise, sigma)
    predicted = teacher_forced_velocity(network, clean, noisy, sigma, sigma.new_zeros(sigma.shape), actions, pattern)
    first = pattern.config.chunk_frames
    return torch.cat([x0[:, :first], x0_from_velocity(noisy, predicted, sigma)[:, first:]], dim=1)
