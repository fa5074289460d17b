"""The critic of distribution matching, with or without a GAN head. Owns their joint loss, not the update order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from distill.methods.adversarial import approximate_r1, discriminator_loss
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialConfig:
    """The GAN branch on the critic (DMD2, arXiv:2405.14867, §4.3). student_weight, critic_weight: weights of its losses
    beside distribution matching and denoising. r1_weight: weight of the approximate R1, 0 to leave it out. layer: the
    critic's layer whose features the head reads; None for the middle one, as DMD2 reads the bottleneck of its UNet.
    The first layers know little of what distinguishes samples."""

    student_weight: float = 3e-3
    critic_weight: float = 1e-2
    r1_weight: float = 0.0
    layer: int | None = None


@runtime_checkable
class Layered(Protocol):
    """A network that says how many layers have features."""

    @property
    def num_layers(self) -> int: ...


def discriminator_layer(network: nn.Module, branch: AdversarialConfig) -> int:
    """Return the layer whose features the head reads. Raises ValueError if the network does not tell its middle."""
    if branch.layer is not None:
        return branch.layer
    if not isinstance(network, Layered):
        raise ValueError(
            f"{type(network).__name__} does not say how many layers have features: set `layer` in AdversarialConfig, "
            "or give the network an attribute `num_layers`"
        )
    return network.num_layers // 2


class CriticWithHead(nn.Module):
    """The critic and a discriminator head on its features; they train together."""

    def __init__(self, network: nn.Module, head: nn.Module | None, layer: int) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.layer = layer

    def logits(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Return the head's estimate of log p_real/p_generated for samples at level sigma: `b k`."""
        if self.head is None:
            raise ValueError("this critic has no head: give the task one, and its config `adversarial`")
        features = self.network(x, sigma, cond, features=(self.layer,)).features[self.layer]
        return self.head(features).flatten(1)  # type: ignore[no-any-return]  # nn.Module call is untyped

    def weighted_discriminator_loss(
        self,
        real: Tensor,
        fake: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        branch: AdversarialConfig,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the branch's weighted part of the critic's loss: real samples at level sigma, with their conditioning,
        against the logits `fake` of generated ones, plus R1 where the branch has it. Call it in full precision: R1 is a
        small difference of logits."""
        loss = discriminator_loss(self.logits(real, sigma, cond), fake)
        if branch.r1_weight:
            discriminator = partial(self.logits, cond=cond)
            loss = loss + branch.r1_weight * approximate_r1(discriminator, real, sigma, generator)
        return branch.critic_weight * loss


def critic_with_head(teacher: nn.Module, head: nn.Module | None, branch: AdversarialConfig | None) -> CriticWithHead:
    """Return a critic with the teacher's weights, with or without a GAN branch. Raises ValueError for a head without a
    branch or a branch without a head."""
    if (head is None) != (branch is None):
        raise ValueError("a head and the config's `adversarial` belong together: give both or neither")
    layer = 0 if branch is None else discriminator_layer(teacher, branch)
    return CriticWithHead(copy.deepcopy(teacher).requires_grad_(True), head, layer)


@contextmanager
def frozen_weights(module: nn.Module) -> Iterator[None]:
    """Freeze a module's weights inside the block; gradients still pass through it."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
