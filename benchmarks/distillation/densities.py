"""Two-dimensional densities with exact samples and weighted modes. Owns the densities; trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.distillation.distances import mode_variation, sliced_wasserstein
from benchmarks.distillation.settings import NONE, Setting
from world.model.transformer import Conditioning


@dataclass(frozen=True, slots=True)
class Density:
    """sample: (number, generator) → points `b 2` with unit standard deviation and the mode of each, int64 `b`. mode:
    points → the mode of each. weights: of the modes."""

    name: str
    sample: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    mode: Callable[[Tensor], Tensor]
    weights: Tensor


def eight_gaussians() -> Density:
    """Return eight narrow modes on a circle with equal weights."""
    angles = torch.arange(8) * (math.pi / 4)
    centres = 1.4 * torch.stack([angles.cos(), angles.sin()], dim=1)

    def sample(num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mode = torch.randint(8, (num,), generator=generator)
        return centres[mode] + 0.1 * torch.randn(num, 2, generator=generator), mode

    return Density("eight_gaussians", sample, lambda x: torch.cdist(x, centres).argmin(1), torch.full((8,), 1 / 8))


def uneven_moons() -> Density:
    """Return two interleaved half circles with weights 0.7 and 0.3."""
    weights = torch.tensor([0.7, 0.3])
    along = torch.linspace(0, math.pi, 200)
    upper = torch.stack([along.cos(), along.sin()], dim=1)
    arcs = torch.stack([upper, torch.tensor([1.0, 0.5]) - upper])
    middle = torch.tensor([0.5, 0.25])

    def sample(num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mode = (torch.rand(num, generator=generator) >= weights[0]).long()
        angle = math.pi * torch.rand(num, generator=generator)
        point = torch.stack([angle.cos(), angle.sin()], dim=1)
        point = torch.where(mode[:, None] == 0, point, torch.tensor([1.0, 0.5]) - point)
        return 1.4 * (point + 0.05 * torch.randn(num, 2, generator=generator) - middle), mode

    def mode_of(x: Tensor) -> Tensor:
        points = x / 1.4 + middle
        return torch.stack([torch.cdist(points, arc).amin(1) for arc in arcs], dim=1).argmin(1)

    return Density("uneven_moons", sample, mode_of, weights)


DENSITIES = {"eight_gaussians": eight_gaussians, "uneven_moons": uneven_moons}
NUM_SAMPLES = 20_000


def point_quality(density: Density, seed: int = 1) -> Callable[[Tensor], dict[str, float]]:
    """Return a function that measures `NUM_SAMPLES` points: their distance from exact ones, and the modes' weights."""
    exact = exact_points(density, seed)

    def quality(samples: Tensor) -> dict[str, float]:
        return {
            "sliced_wasserstein": sliced_wasserstein(samples, exact),
            "mode_variation": mode_variation(density.mode(samples), density.weights),
        }

    return quality


def exact_points(density: Density, seed: int) -> Tensor:
    """Draw `NUM_SAMPLES` points from the density."""
    return density.sample(NUM_SAMPLES, torch.Generator().manual_seed(seed))[0]


def point_setting(density: Density, **changes: Any) -> Setting:
    """Return the setting for training on the density; changes: of its other fields."""

    def draw(num: int, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        return density.sample(num, generator)[0], NONE

    return Setting(draw=draw, size=2, **changes)
