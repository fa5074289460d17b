"""A two-dimensional process led by actions, whose conditional law is known. Owns the law and its check."""

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
"""Of a step's noise: the process has unit deviation."""

NUM_STEPS = 8
WINDOW = 4


def process_config() -> TransformerConfig:
    """The smallest transformer that the process fits: one token a frame."""
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
    """E[next state] of states `… 2` under actions `…` in [−1, 1]: turned by the action, drawn to the middle."""
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
    """What each frame from `first` on adds to its mean given the frame before, in its own deviations, after the state
    that it all starts from: independent and normal if, and only if, the conditional law is the process's. `b n`."""
    states = latents[..., 0, 0]
    added = (states[:, first:] - step_mean(states[:, first - 1 : -1], actions[:, first:, 0])) / STD
    return torch.cat([states[:, first - 1], added.flatten(1)], dim=1)


def rolled_out(network: Network, clips: Clips, num_steps: int, *, shift: float, renoise: bool, seed: int = 5) -> Tensor:
    """The clips' first `WINDOW` frames, then `NUM_STEPS` of the network's own under the clips' actions: `b t 2 1 1`."""
    context = clips.latents[:, :WINDOW]
    with torch.no_grad():
        cache = RollingCache.prefill(network, process_config(), context, clips.actions[:, :WINDOW])
        generator = torch.Generator().manual_seed(seed)
        sigmas = sampling_sigmas(num_steps, shift)
        new = self_rollout(network, cache, clips.actions[:, WINDOW:], sigmas, num_steps - 1, generator, renoise=renoise)
    return torch.cat([context, new], dim=1)


def law_distance(latents: Tensor, actions: Tensor, seed: int = 6) -> float:
    """Sliced Wasserstein distance of the innovations of frames after the context from those of the true process."""
    own = innovations(latents, actions, WINDOW)
    exact = ProcessClips(latents.shape[1]).draw(len(latents), torch.Generator().manual_seed(seed))
    return sliced_wasserstein(own, innovations(exact.latents, exact.actions, WINDOW))
