"""Truncated consistency models (arXiv:2410.14895): a second stage that learns only high noise levels. Pure functions.

The frozen model of the first stage is used below `cutoff`; the student need not be accurate there and spends its
capacity above. Where a pair of levels straddles the cutoff, the student is tied to the first stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill.methods.consistency import ConsistencyLossConfig, distance
from distill.methods.network import Network, predict_x0
from world.model.schedule import add_noise, expand
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class TruncatedConfig:
    """cutoff: sigma 0.5, which is t' = 1 on EDM's scale. boundary_share: share of the samples drawn at the cutoff;
    boundary_weight: weight of their loss (arXiv:2410.14895, §4.1 and appendix)."""

    cutoff: float = 0.5
    boundary_share: float = 0.25
    boundary_weight: float = 0.1
    consistency: ConsistencyLossConfig = field(default_factory=ConsistencyLossConfig)


def truncated_levels(sigma: Tensor, generator: torch.Generator, config: TruncatedConfig) -> Tensor:
    """Return levels `b` raised to at least the cutoff, and set to the cutoff for `boundary_share` of the samples."""
    pinned = torch.rand(sigma.shape, generator=generator) < config.boundary_share
    return torch.where(pinned, torch.full_like(sigma, config.cutoff), sigma.clamp_min(config.cutoff))


def truncated_consistency_loss(
    student: Network,
    first_stage: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    cond: Conditioning,
    config: TruncatedConfig,
) -> Tensor:
    """Return the consistency loss above the cutoff plus the boundary loss against `first_stage`.

    arXiv:2410.14895, eq. 9 and 10. sigma ≥ cutoff, sigma > sigma_next, `b`; pairs whose lower level is below the cutoff
    count as boundary.
    """
    lower = add_noise(x0, noise, sigma_next)
    boundary = sigma_next < config.cutoff
    with torch.no_grad():
        own, first = (predict_x0(network, lower, sigma_next, cond) for network in (student, first_stage))
        goal = torch.where(expand(boundary, own).bool(), first, own)
    error = predict_x0(student, add_noise(x0, noise, sigma), sigma, cond) - goal
    loss = distance(error, config.consistency.huber) / (sigma - sigma_next)
    weight = torch.where(boundary, config.boundary_weight, 1.0).to(loss)
    return (weight * loss).mean()
