"""Diffusion forcing (arXiv:2407.01392): every frame has a noise level of its own and sees the noisy frames before it.
Pure functions.

One pass over the noisy clip, half of teacher forcing's tokens. What comes before a frame is as noisy as it happens to
be; some clips are clean up to a frame, since that is what a rollout will give.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.methods.flow_matching import flow_matching_loss
from distill.methods.network import Network
from world.model.patterns import Banded
from world.model.transformer import Conditioning


def forced_levels(sigma: Tensor, clean_share: float, generator: torch.Generator) -> Tensor:
    """Levels `b f` of which, in a share of the clips, all before a random frame are 0."""
    b, f = sigma.shape
    first = torch.randint(1, f, (b, 1), generator=generator)
    chosen = torch.rand(b, 1, generator=generator) < clean_share
    return torch.where(chosen & (torch.arange(f) < first), torch.zeros_like(sigma), sigma)


def diffusion_forcing_loss(
    network: Network, x0: Tensor, noise: Tensor, sigma: Tensor, actions: Tensor, pattern: Banded
) -> Tensor:
    """arXiv:2407.01392, algorithm 1, with velocities. x0, noise `b f c h w`; sigma `b f`, 0 where a frame is given; the
    loss counts where it is not."""
    return flow_matching_loss(network, x0, noise, sigma, sigma > 0, Conditioning(actions=actions), pattern)
