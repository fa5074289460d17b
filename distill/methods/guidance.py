"""Classifier-free guidance (arXiv:2207.12598) as a `Network`. Owns the mix of two predictions; knows no method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from distill.methods.network import Network
from world.model.patterns import AttentionPattern
from world.model.transformer import Conditioning, Output


@dataclass(frozen=True, slots=True)
class Guided:
    """unconditional + scale·(conditional − unconditional).

    scale: 1 is no guidance; some papers call scale − 1 the scale. without: the conditioning of the unconditional
    prediction (default: empty). sigma_range: the levels where guidance is used (arXiv:2404.07724); elsewhere the
    conditional prediction is returned.
    """

    network: Network
    scale: float
    without: Conditioning = field(default_factory=Conditioning)
    sigma_range: tuple[float, float] = (0.0, 1.0)

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
        conditional = self.network(x, sigma, cond, sigma_next=sigma_next, pattern=pattern, features=features)
        if self.scale == 1.0:
            return conditional
        unconditional = self.network(x, sigma, self.without, sigma_next=sigma_next, pattern=pattern).prediction
        low, high = self.sigma_range
        inside = ((sigma >= low) & (sigma <= high)).reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))
        mixed = unconditional + self.scale * (conditional.prediction - unconditional)
        return replace(conditional, prediction=mixed.where(inside, conditional.prediction))
