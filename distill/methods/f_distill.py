"""f-distill (arXiv:2502.15681): distribution matching under any f-divergence. Pure functions.

The gradient of D_f(p‖q) = E_q f(p/q) is DMD's gradient with each sample weighted by h(ρ) = f″(ρ)·ρ², where
ρ = p_real/p_fake at the noised sample (theorem 1). ρ is estimated by the discriminator of the adversarial loss, whose
logit is log ρ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
    """ratio_range: bounds that the ratio is clipped to. normalised: divide the weights by their batch mean, so that the
    step size does not depend on the divergence."""

    divergence: Divergence = "jensen_shannon"
    ratio_range: tuple[float, float] = (0.1, 20.0)
    normalised: bool = True


def f_weights(logits: Tensor, config: FDistillConfig) -> Tensor:
    """Return h(ρ) `b` without gradient, the `weight` of `dmd_gradient`; logits `b …` are averaged per sample."""
    with torch.no_grad():
        ratio = logits.flatten(1).mean(1).exp() if logits.ndim > 1 else logits.exp()
        weight = WEIGHTS[config.divergence](ratio.clamp(*config.ratio_range))
        return weight / weight.mean().clamp_min(1e-6) if config.normalised else weight
