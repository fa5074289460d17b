"""LADD, latent adversarial diffusion distillation (arXiv:2403.12015). Pure functions.

Student samples and real samples are noised to the same level, and heads on the frozen teacher's features discriminate
between them; there is no distribution-matching term. Levels are logit-normal: at high levels the discriminator sees
layout, at low levels texture (§3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.methods.adversarial import hinge_discriminator_loss, hinge_generator_loss
from distill.methods.network import Network
from distill.methods.sampling import logit_normal_sigma
from world.model.schedule import add_noise
from world.model.transformer import Conditioning

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class LADDConfig:
    """mean, std: of the logit of the discriminator's noise level (arXiv:2403.12015, §3.2: π(1, 1))."""

    mean: float = 1.0
    std: float = 1.0


def discriminator_levels(batch: int, generator: torch.Generator, config: LADDConfig) -> Tensor:
    """Draw the noise levels of the discriminator's inputs, `b`."""
    return logit_normal_sigma(batch, generator, mean=config.mean, std=config.std)


class FeatureDiscriminator(nn.Module):
    """Heads on the features of a network; only the heads are parameters of this module."""

    def __init__(self, network: Network, heads: dict[int, nn.Module], cond: Conditioning) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({str(layer): head for layer, head in heads.items()})
        self._network = (network,)  # a tuple, so that the network is not registered as a submodule
        self.cond = cond

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the logits `b k` of all heads for samples at level sigma; gradients reach x through the network."""
        layers = tuple(int(layer) for layer in self.heads)
        features = self._network[0](x, sigma, self.cond, features=layers).features
        return torch.cat([self.heads[str(layer)](features[layer]).flatten(1) for layer in layers], dim=1)


def ladd_student_loss(discriminator: FeatureDiscriminator, fake: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return −E d at the student's samples `b …`, noised to sigma `b`."""
    return hinge_generator_loss(discriminator(add_noise(fake, noise, sigma), sigma))


def ladd_discriminator_loss(
    discriminator: FeatureDiscriminator,
    real: Tensor,
    fake: Tensor,
    noise: tuple[Tensor, Tensor],
    sigma: Tensor,
) -> Tensor:
    """Return the hinge loss. noise: for the real and for the fake samples."""
    noised_real = discriminator(add_noise(real, noise[0], sigma), sigma)
    noised_fake = discriminator(add_noise(fake.detach(), noise[1], sigma), sigma)
    return hinge_discriminator_loss(noised_real, noised_fake)
