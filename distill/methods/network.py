"""The network contract as methods see it. Owns the call's type and what methods read off it; knows no architecture."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from world.model.patterns import AttentionPattern
from world.model.schedule import x0_from_velocity
from world.model.transformer import Conditioning, Output


class Network(Protocol):
    """Velocity on the flow scale. Video: x `b f c h w`, sigma `b f`. Methods for images and other data take x `b …`,
    sigma `b`. sigma_next: the level a flow map goes to, for networks that learn one (MeanFlow)."""

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        sigma_next: Tensor | None = None,
        pattern: AttentionPattern | None = None,
        features: tuple[int, ...] = (),
    ) -> Output: ...


def predict_velocity(
    network: Network,
    x: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    pattern: AttentionPattern | None = None,
    *,
    sigma_next: Tensor | None = None,
) -> Tensor:
    """The network's velocity, float32 or better."""
    prediction = network(x, sigma, cond, sigma_next=sigma_next, pattern=pattern).prediction
    return prediction.to(torch.promote_types(prediction.dtype, torch.float32))


def predict_x0(
    network: Network, x: Tensor, sigma: Tensor, cond: Conditioning, pattern: AttentionPattern | None = None
) -> Tensor:
    """The network's x0, float32 or better."""
    return x0_from_velocity(x, predict_velocity(network, x, sigma, cond, pattern), sigma)
