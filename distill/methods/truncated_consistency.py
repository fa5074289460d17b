"""Truncated consistency models (arXiv:2410.14895): a second stage that learns only high noise levels. Pure functions.

The frozen model of the first stage is used below `cutoff`; the student need not be accurate there and spends its
capacity above. Where a pair of levels straddles the cutoff, the student is tied to the first stage; a share of each
batch lies at the cutoff itself, so that there always are such pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill.methods.consistency import ConsistencyLossConfig, distance
from distill.methods.network import Network, predict_x0
from world.model.schedule import add_noise, expand
from world.model.transformer import Conditioning

GRID = 8192
"""Points at which the distribution function of the levels is tabulated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TruncatedConfig:
    """cutoff, highest: the range of levels. boundary_share: share of the samples at the cutoff; boundary_weight: weight
    of their mean loss. mean, scale, degrees: of Student's t law of log(sigma / (1 − sigma)), truncated to the range.

    The defaults are those of the paper (arXiv:2410.14895, §4 and its code: t' = 1, mean 0, scale 0.2, 0.01 degrees of
    freedom for data of deviation 0.5), for data scaled to unit deviation, where noise is twice as large at the same
    ratio. Only `highest` differs, since students start from pure noise.
    """

    cutoff: float = 2 / 3
    highest: float = 0.999
    boundary_share: float = 0.25
    boundary_weight: float = 0.1
    mean: float = math.log(2)
    scale: float = 0.2
    degrees: float = 0.01
    consistency: ConsistencyLossConfig = field(default_factory=ConsistencyLossConfig)


def truncated_levels(batch: int, generator: torch.Generator, config: TruncatedConfig) -> tuple[Tensor, Tensor]:
    """Draw levels `b`: those of `boundary_share` of the samples are the cutoff, the others lie above it. Return them
    and a mask, bool `b`, of the former. Where the share is no whole number of samples, it holds over many batches."""
    low, high = (math.log(level / (1 - level)) - config.mean for level in (config.cutoff, config.highest))
    uniform = torch.rand(batch, generator=generator, dtype=torch.float64)
    draws = _truncated_student_t(uniform, config.degrees, low / config.scale, high / config.scale)
    above = torch.sigmoid(config.mean + config.scale * draws).float()
    num_pinned = int(config.boundary_share * batch + float(torch.rand((), generator=generator)))
    pinned = torch.zeros(batch, dtype=torch.bool)
    pinned[torch.randperm(batch, generator=generator)[:num_pinned]] = True
    return torch.where(pinned, torch.full_like(above, config.cutoff), above), pinned


def _truncated_student_t(uniform: Tensor, degrees: float, low: float, high: float) -> Tensor:
    """Return draws of Student's t law in [low, high] from uniform ones `b`, by its tabulated distribution function."""
    unit = math.sqrt(degrees)  # about this far out the density turns into a power law
    grid = unit * torch.linspace(math.asinh(low / unit), math.asinh(high / unit), GRID, dtype=torch.float64).sinh()
    density = (1 + grid.square() / degrees) ** (-(degrees + 1) / 2)
    table = torch.cumulative_trapezoid(density, grid)
    table = torch.cat([table.new_zeros(1), table / table[-1]])
    upper = torch.searchsorted(table, uniform).clamp(1, GRID - 1)
    share = (uniform - table[upper - 1]) / (table[upper] - table[upper - 1])
    return torch.lerp(grid[upper - 1], grid[upper], share)


def truncated_consistency_loss(
    student: Network,
    first_stage: Network,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    pinned: Tensor,
    cond: Conditioning,
    config: TruncatedConfig,
) -> Tensor:
    """Return the mean consistency loss above the cutoff plus `boundary_weight` times that of the `pinned` samples
    (arXiv:2410.14895, eq. 9 and 10).

    x0, noise `b …`; sigma ≥ cutoff, sigma > sigma_next, pinned `b`. Where the lower level is below the cutoff,
    `first_stage` gives the target.
    """
    lower = add_noise(x0, noise, sigma_next)
    with torch.no_grad():
        own, first = (predict_x0(network, lower, sigma_next, cond) for network in (student, first_stage))
        goal = torch.where(expand(sigma_next < config.cutoff, own).bool(), first, own)
    error = predict_x0(student, add_noise(x0, noise, sigma), sigma, cond) - goal
    loss = distance(error, config.consistency.huber) / (sigma - sigma_next)
    return _mean(loss, ~pinned) + config.boundary_weight * _mean(loss, pinned)


def _mean(loss: Tensor, selected: Tensor) -> Tensor:
    return (loss * selected).sum() / selected.sum().clamp_min(1)
