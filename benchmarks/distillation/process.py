"""A two-dimensional process driven by actions, with a known conditional law. Owns the law and the distance from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.distillation.distances import sliced_wasserstein
from distill.data.latents import Clips
from distill.methods.network import Network
from distill.methods.self_rollout import RollingCache, self_rollout
from world.model.config import TransformerConfig
from world.model.schedule import sampling_sigmas

DECAY, TURN = 0.9, 0.6
STD = math.sqrt(1 - DECAY**2)
"""Standard deviation of a step's noise, chosen so that the process has unit standard deviation."""

NUM_STEPS = 8
WINDOW = 4


def process_config() -> TransformerConfig:
    """Return the smallest transformer for the process: one token per frame."""
    return TransformerConfig(
        channels=2,
        height=1,
        width=1,
        dim=64,
        ffn_dim=128,
        num_layers=2,
        num_heads=2,
        num_axes=1,
        window_frames=WINDOW,
        learned_positions=False,
    )


def step_mean(state: Tensor, action: Tensor) -> Tensor:
    """Return E[next state] for states `… 2`: rotated by the action `…` in [−1, 1] and shrunk towards the origin."""
    angle = TURN * action
    cos, sin = angle.cos(), angle.sin()
    turned = torch.stack([cos * state[..., 0] - sin * state[..., 1], sin * state[..., 0] + cos * state[..., 1]], -1)
    return DECAY * turned


@dataclass
class ProcessClips:
    """A `ClipSource` of the process: latents `b t 2 1 1`; action i leads to frame i."""

    num_frames: int

    def draw(self, batch: int, generator: torch.Generator, *, max_still: int | None = None) -> Clips:
        actions = (torch.randint(3, (batch, self.num_frames), generator=generator) - 1).float()
        noise = torch.randn(batch, self.num_frames, 2, generator=generator)
        states = [noise[:, 0]]
        for i in range(1, self.num_frames):
            states.append(step_mean(states[-1], actions[:, i]) + STD * noise[:, i])
        return Clips(torch.stack(states, 1)[..., None, None], actions[..., None])


def innovations(latents: Tensor, actions: Tensor, first: int) -> Tensor:
    """Return the initial state and the normalised innovations of all frames from `first` on: `b n`.

    An innovation is a frame minus its conditional mean given the frame before, in standard deviations. Innovations are
    independent and standard normal if and only if the conditional law is that of the process.
    """
    states = latents[..., 0, 0]
    normalised = (states[:, first:] - step_mean(states[:, first - 1 : -1], actions[:, first:, 0])) / STD
    return torch.cat([states[:, first - 1], normalised.flatten(1)], dim=1)


def rolled_out(network: Network, clips: Clips, num_steps: int, *, shift: float, renoise: bool, seed: int = 5) -> Tensor:
    """Return the clips' first `WINDOW` frames and `NUM_STEPS` generated ones under the clips' actions: `b t 2 1 1`."""
    context = clips.latents[:, :WINDOW]
    with torch.no_grad():
        cache = RollingCache.prefill(network, process_config(), context, clips.actions[:, :WINDOW])
        generator = torch.Generator().manual_seed(seed)
        sigmas = sampling_sigmas(num_steps, shift)
        new = self_rollout(network, cache, clips.actions[:, WINDOW:], sigmas, num_steps - 1, generator, renoise=renoise)
    return torch.cat([context, new], dim=1)


def law_distance(latents: Tensor, actions: Tensor, seed: int = 6) -> float:
    """Return the sliced Wasserstein distance between the innovations of generated frames and those of the process."""
    generated = innovations(latents, actions, WINDOW)
    exact = ProcessClips(latents.shape[1]).draw(len(latents), torch.Generator().manual_seed(seed))
    return sliced_wasserstein(generated, innovations(exact.latents, exact.actions, WINDOW))
