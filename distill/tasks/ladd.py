"""LADD as a task. Owns draws, network roles and the order of updates; the losses are in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from distill.methods.distribution_matching import backward_simulated
from distill.methods.latent_adversarial import (
    FeatureDiscriminator,
    LADDConfig,
    discriminator_levels,
    ladd_discriminator_loss,
    ladd_student_loss,
)
from distill.methods.network import Network, predict_x0
from distill.methods.sampling import randn_like
from distill.tasks.critic import frozen_weights
from distill.tasks.dmd import FewStepConfig
from distill.tasks.student import Draw
from world.model.transformer import Conditioning


class LADDTask:
    """LADD (arXiv:2403.12015): the student against discriminator heads on the frozen teacher's features.

    heads: by layer, each maps the layer's features to logits. draw: gives the real samples; in the paper these are
    samples of the teacher.
    """

    averaged = "student"
    optimised: Mapping[str, float]

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        draw: Draw,
        config: LADDConfig,
        few_step: FewStepConfig,
        heads: dict[int, nn.Module],
        *,
        heads_lr_share: float = 1.0,
    ) -> None:
        self.discriminator = FeatureDiscriminator(teacher.requires_grad_(False), heads, Conditioning())
        self.modules: Mapping[str, nn.Module] = {"student": student, "heads": self.discriminator}
        self.optimised = {"student": 1.0, "heads": heads_lr_share}
        self.student: Network = student
        self.draw = draw
        self.config, self.few_step = config, few_step
        self.levels = few_step.levels

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        real, cond = self.draw(self.few_step.size, generator)
        self.discriminator.cond = cond
        sigma = discriminator_levels(len(real), generator, self.config)
        noises = randn_like(real, generator), randn_like(real, generator)
        stage = int(torch.randint(self.few_step.num_steps, (1,), generator=generator))
        x = backward_simulated(self.student, randn_like(real, generator), cond, self.levels, stage, generator)
        fake = predict_x0(self.student, x, self.levels[stage].expand(len(x)), cond)
        with frozen_weights(self.discriminator):
            loss = ladd_student_loss(self.discriminator, fake, noises[0], sigma)
        yield "student", loss, {}
        self.discriminator.cond = cond  # accumulated draws advance in turns, each with its own conditioning
        yield "heads", ladd_discriminator_loss(self.discriminator, real, fake.detach(), noises, sigma), {}
