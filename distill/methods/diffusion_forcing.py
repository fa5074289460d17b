"""Diffusion forcing (arXiv:2407.01392): each chunk has its own noise level and sees the noisy chunks before it.

Pure functions. One pass over the noisy clip needs half of teacher forcing's tokens. The chunks before a chunk have
arbitrary noise levels; some clips are clean up to a random chunk, because a rollout's past is clean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.methods.flow_matching import flow_matching_loss
from distill.methods.network import Network
from distill.methods.sampling import prefix_lengths
from world.model.patterns import Banded
from world.model.transformer import Conditioning


def forced_levels(sigma: Tensor, clean_share: float, chunk: int, generator: torch.Generator) -> Tensor:
    """Return sigma `b f` with all levels before a random chunk set to 0 in a share of the clips."""
    b, f = sigma.shape
    first = prefix_lengths(b, f, chunk, generator)[:, None]
    chosen = torch.rand(b, 1, generator=generator) < clean_share
    return torch.where(chosen & (torch.arange(f) < first), torch.zeros_like(sigma), sigma)


def diffusion_forcing_loss(
    network: Network, x0: Tensor, noise: Tensor, sigma: Tensor, actions: Tensor, pattern: Banded
) -> Tensor:
    """Return the loss of arXiv:2407.01392, algorithm 1, for velocities.

    x0, noise `b f c h w`; sigma `b f`: 0 marks clean frames, which carry no loss.
    """
    return flow_matching_loss(network, x0, noise, sigma, sigma > 0, Conditioning(actions=actions), pattern)
