"""The network contract as methods see it. Owns the call's type and x0 from it; knows no architecture."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from world.context import Context
from world.schedule import x0_from_velocity
from world.transformer import Conditioning, Output


class Network(Protocol):
    """x `b f c h w`, sigma `b f` → velocity, on the flow scale."""

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        sigma_next: Tensor | None = None,
        context: Context | None = None,
        features: tuple[int, ...] = (),
    ) -> Output: ...


def predict_x0(
    network: Network, x: Tensor, sigma: Tensor, cond: Conditioning, context: Context | None = None
) -> Tensor:
    """The network's x0, float32."""
    velocity = network(x, sigma, cond, context=context).prediction.float()
    return x0_from_velocity(x, velocity, sigma)
