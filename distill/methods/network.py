"""The interface between methods and networks. Owns the type of the call and the predictions; knows no architecture."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from world.model.patterns import AttentionPattern
from world.model.schedule import x0_from_velocity
from world.model.transformer import Conditioning, Output


class Network(Protocol):
    """A network that predicts the velocity on the flow scale.

    Video: x `b f c h w`, sigma `b f`. Images and other data: x `b …`, sigma `b`. sigma_next: the target level, for
    networks that learn a flow map (MeanFlow).
    """

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
    """Return the network's velocity in float32 or float64."""
    prediction = network(x, sigma, cond, sigma_next=sigma_next, pattern=pattern).prediction
    return prediction.to(torch.promote_types(prediction.dtype, torch.float32))


def predict_x0(
    network: Network, x: Tensor, sigma: Tensor, cond: Conditioning, pattern: AttentionPattern | None = None
) -> Tensor:
    """Return the network's x0 in float32 or float64."""
    return x0_from_velocity(x, predict_velocity(network, x, sigma, cond, pattern), sigma)
