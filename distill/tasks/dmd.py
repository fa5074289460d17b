"""DMD2 and f-distill as a task. Owns draws, network roles and the order of updates; the losses are in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill.methods.adversarial import generator_loss
from distill.methods.distribution_matching import backward_simulated, critic_loss, dmd_gradient, dmd_loss
from distill.methods.f_distill import DivergenceWeights, FDistillConfig
from distill.methods.network import predict_x0
from distill.methods.sampling import randn_like, uniform_sigma
from distill.tasks.critic import AdversarialConfig, critic_with_head, frozen_weights
from distill.tasks.student import Draw
from world.model.schedule import add_noise, sampling_sigmas
from world.model.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class FewStepConfig:
    """num_steps, shift: the student's noise levels. size: samples per training step."""

    num_steps: int = 1
    shift: float = 1.0
    size: int = 1024

    @property
    def levels(self) -> Tensor:
        """The student's noise levels and 0: `num_steps + 1`."""
        return sampling_sigmas(self.num_steps, self.shift).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class DMDConfig:
    """sigma_range: levels at which teacher and critic are compared (arXiv:2311.18828, §3.2: 0.02 … 0.98 of the
    schedule). critic_updates: per student update (DMD2, §4.2). adversarial: the GAN branch; None to match distributions
    alone. divergence: of f-distill, instead of the reverse KL; it reads the density ratio off the GAN branch."""

    student: FewStepConfig = field(default_factory=FewStepConfig)
    sigma_range: tuple[float, float] = (0.02, 0.98)
    sigma_shift: float = 1.0
    critic_updates: int = 5
    critic_lr_share: float = 1.0
    adversarial: AdversarialConfig | None = None
    divergence: FDistillConfig | None = None

    def __post_init__(self) -> None:
        check_divergence(self.divergence, self.adversarial)


def check_divergence(divergence: FDistillConfig | None, adversarial: AdversarialConfig | None) -> None:
    """Raise ValueError for a divergence without the GAN branch that it reads the density ratio off."""
    if divergence is not None and adversarial is None:
        raise ValueError("f-distill reads the density ratio off a discriminator: give `adversarial` too")


class DMDTask:
    """DMD2 (arXiv:2405.14867) and f-distill (arXiv:2502.15681) of a few-step student against teacher and critic.

    student: has the teacher's weights at first. head: maps features of the critic's layer to logits; for a GAN branch.
    """

    averaged = "student"

    def __init__(
        self, student: nn.Module, teacher: nn.Module, draw: Draw, config: DMDConfig, *, head: nn.Module | None = None
    ) -> None:
        self.critic = critic_with_head(teacher, head, config.adversarial)
        self.divergence = None if config.divergence is None else DivergenceWeights(config.divergence)
        self.modules: Mapping[str, nn.Module] = {"student": student, "critic": self.critic}
        if self.divergence is not None:
            self.modules = {**self.modules, "divergence": self.divergence}
        self.optimised = {"student": 1.0, "critic": config.critic_lr_share}
        self.student, self.teacher = student, teacher.requires_grad_(False)
        self.draw = draw
        self.config = config
        self.levels = config.student.levels

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        for _ in range(self.config.critic_updates):
            yield "critic", self._critic_loss(generator), {}
        yield "student", self._student_loss(generator), {}

    def _student_loss(self, generator: torch.Generator) -> Tensor:
        x, _, cond = self._generated(generator)
        sigma, noise = self._sigma(len(x), generator), randn_like(x, generator)
        branch, weight = self.config.adversarial, None
        adversarial = x.new_zeros(())
        if branch is not None:
            with frozen_weights(self.critic):
                logits = self.critic.logits(add_noise(x, noise, sigma), sigma, cond)
            adversarial = branch.student_weight * generator_loss(logits)
            if self.divergence is not None:
                weight = self.divergence(logits, sigma)
        gradient = dmd_gradient(self.teacher, self.critic.network, x.detach(), noise, sigma, None, cond, weight=weight)
        return dmd_loss(x, gradient) + adversarial

    def _critic_loss(self, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            x, real, cond = self._generated(generator)
        sigma, noise = self._sigma(len(x), generator), randn_like(x, generator)
        loss = critic_loss(self.critic.network, x, noise, sigma, None, cond)
        branch = self.config.adversarial
        if branch is None:
            return loss
        noised_real = add_noise(real, randn_like(real, generator), sigma)
        fake = self.critic.logits(add_noise(x, noise, sigma), sigma, cond)
        return loss + self.critic.weighted_discriminator_loss(noised_real, fake, sigma, cond, branch, generator)

    def _generated(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Conditioning]:
        """Return the student's samples, real ones, and their conditioning. A random one of the student's steps is
        trained, on the input it has there when sampling."""
        real, cond = self.draw(self.config.student.size, generator)
        stage = int(torch.randint(self.config.student.num_steps, (1,), generator=generator))
        x = backward_simulated(self.student, randn_like(real, generator), cond, self.levels, stage, generator)
        return predict_x0(self.student, x, self.levels[stage].expand(len(x)), cond), real, cond

    def _sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        low, high = self.config.sigma_range
        return uniform_sigma(batch, generator, low=low, high=high, shift=self.config.sigma_shift)
