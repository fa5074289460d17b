"""f-distill (arXiv:2502.15681): distribution matching under any f-divergence. Pure functions.

The gradient of D_f(p‖q) = E_q f(p/q) is DMD's gradient with each sample weighted by h(ρ) = f″(ρ)·ρ², where
ρ = p_real/p_fake at the noised sample (theorem 1). ρ is estimated by the discriminator of the adversarial loss, whose
logit is log ρ. Over generated samples the mean of ρ is 1 at every noise level, so the estimate is divided by its
running mean in a bin of levels (the first of the paper's two normalisations; the second is that of the weights).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Divergence = Literal[
    "reverse_kl", "forward_kl", "jensen_shannon", "softened_reverse_kl", "neyman", "squared_hellinger", "jeffreys"
]

DIVERGENCES: dict[Divergence, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda u: -u.log(),
    "forward_kl": lambda u: u * u.log(),
    "jensen_shannon": lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
    "softened_reverse_kl": lambda u: (u + 1) * ((u + 1) / (2 * u)).log(),
    "neyman": lambda u: (1 - u).square() / u,
    "squared_hellinger": lambda u: 1 - u.sqrt(),
    "jeffreys": lambda u: (u - 1) * u.log(),
}
"""f(u), up to terms linear in u, which do not affect the gradient."""

WEIGHTS: dict[Divergence, Callable[[Tensor], Tensor]] = {
    "reverse_kl": torch.ones_like,
    "forward_kl": lambda ratio: ratio,
    "jensen_shannon": lambda ratio: ratio / (1 + ratio),
    "softened_reverse_kl": lambda ratio: 1 / (1 + ratio),
    "neyman": lambda ratio: 2 / ratio,
    "squared_hellinger": lambda ratio: 0.25 * ratio.sqrt(),
    "jeffreys": lambda ratio: 1 + ratio,
}
"""h(ρ) = f″(ρ)·ρ²."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FDistillConfig:
    """ratio_range: bounds that the ratio is clipped to. num_bins: of noise levels; in each the ratio is divided by its
    mean. mean_decay: of that running mean (FastGen's code has 0, and 0.5 for ImageNet-64, for batches of thousands).
    normalised: divide the weights by their batch mean, so that the step size does not depend on the divergence."""

    divergence: Divergence = "jensen_shannon"
    ratio_range: tuple[float, float] = (0.1, 20.0)
    num_bins: int = 10
    mean_decay: float = 0.9
    normalised: bool = True


@torch.no_grad()
def density_ratio(logits: Tensor, config: FDistillConfig) -> Tensor:
    """Return the clipped ratio ρ `b` without gradient; logits `b …` are averaged per sample."""
    return logits.reshape(len(logits), -1).mean(1).exp().clamp(*config.ratio_range)


@torch.no_grad()
def f_weights(ratio: Tensor, config: FDistillConfig) -> Tensor:
    """Return h(ρ) `b` without gradient, from the ratio `b`."""
    weight = WEIGHTS[config.divergence](ratio)
    return weight / weight.mean().clamp_min(1e-6) if config.normalised else weight


class DivergenceWeights(nn.Module):
    """The weights of generated samples under a divergence, with the running mean of the density ratio in each bin of
    noise levels, 1 at first; saved with the task."""

    means: Tensor

    def __init__(self, config: FDistillConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("means", torch.ones(config.num_bins))

    def forward(self, logits: Tensor, sigma: Tensor) -> Tensor:
        """Return h(ρ) `b` without gradient, the `weight` of `dmd_gradient`, for logits `b …` at levels sigma `b`."""
        return f_weights(self.normalised(density_ratio(logits, self.config), sigma), self.config)

    @torch.no_grad()
    def normalised(self, ratio: Tensor, sigma: Tensor) -> Tensor:
        """Move the means towards these ratios `b` at levels sigma `b`. Return the ratios, divided by their means."""
        bins = (sigma * len(self.means)).long().clamp(0, len(self.means) - 1)
        number = torch.bincount(bins, minlength=len(self.means))
        total = torch.zeros_like(self.means).index_add_(0, bins, ratio.to(self.means))
        moved = torch.lerp(total / number.clamp_min(1), self.means, self.config.mean_decay)
        self.means.copy_(torch.where(number > 0, moved, self.means))
        return ratio / self.means[bins].to(ratio)
