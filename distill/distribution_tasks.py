"""Distribution-based distillation of any network as trainer tasks: DMD2, f-distill, LADD. Owns draws, networks' roles
and the order of updates; the losses are in `methods`.

For data without frames, as in `trajectory_tasks`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill.methods.adversarial import approximate_r1, discriminator_loss, generator_loss
from distill.methods.distribution_matching import backward_simulated, critic_loss, dmd_gradient, dmd_loss
from distill.methods.f_distill import FDistillConfig, f_weights
from distill.methods.latent_adversarial import (
    FeatureDiscriminator,
    LADDConfig,
    judged_levels,
    ladd_discriminator_loss,
    ladd_student_loss,
)
from distill.methods.network import Network, predict_x0
from distill.methods.sampling import randn_like, uniform_sigma
from distill.trajectory_tasks import Draw
from world.schedule import add_noise, sampling_sigmas
from world.transformer import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class FewStepConfig:
    """The student's `num_steps` levels, shifted; `size` samples a step."""

    num_steps: int = 1
    shift: float = 1.0
    size: int = 1024

    @property
    def levels(self) -> Tensor:
        return sampling_sigmas(self.num_steps, self.shift).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialConfig:
    """The GAN branch on the critic (DMD2, arXiv:2405.14867, §4.3). student_weight, critic_weight: of its losses beside
    distribution matching and denoising. r1_weight: of the approximate R1, 0 to leave it out. layer: of the critic,
    whose features are judged."""

    student_weight: float = 3e-3
    critic_weight: float = 1e-2
    r1_weight: float = 0.0
    layer: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DMDConfig:
    """sigma_range: levels at which teacher and critic are compared (arXiv:2311.18828, §3.2: 0.02 … 0.98 of the
    schedule). critic_updates: per student update (DMD2, §4.2). adversarial: None to match distributions alone.
    divergence: other than the reverse KL, of f-distill; it reads the density ratio off the GAN branch."""

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
    """Raises ValueError for a divergence without the branch that it reads the density ratio off."""
    if divergence is not None and adversarial is None:
        raise ValueError("f-distill reads the density ratio off a discriminator: give `adversarial` too")


class JudgingCritic(nn.Module):
    """The critic, and a head on its features that tells real from generated; they train together."""

    def __init__(self, network: nn.Module, head: nn.Module | None, layer: int) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.layer = layer

    def logits(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """log p_real/p_generated of samples at level sigma, as far as the head knows: `b k`."""
        if self.head is None:
            raise ValueError("this critic has no head: give the task one, and its config `adversarial`")
        features = self.network(x, sigma, cond, features=(self.layer,)).features[self.layer]
        return self.head(features).flatten(1)  # type: ignore[no-any-return]  # nn.Module call is untyped

    def judgement(
        self,
        real: Tensor,
        fake: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        branch: AdversarialConfig,
        generator: torch.Generator,
    ) -> Tensor:
        """The branch's part of the critic's loss, weighted: real samples at level sigma, with their conditioning,
        against the logits `fake` of generated ones, and R1 where the branch has it. In full precision: R1 is a small
        difference of logits."""
        loss = discriminator_loss(self.logits(real, sigma, cond), fake)
        if branch.r1_weight:
            judge = lambda x, level: self.logits(x, level, cond).mean(1)  # noqa: E731  # shorter than a function here
            loss = loss + branch.r1_weight * approximate_r1(judge, real, sigma, generator)
        return branch.critic_weight * loss


def judging_critic(teacher: nn.Module, head: nn.Module | None, branch: AdversarialConfig | None) -> JudgingCritic:
    """The critic of a GAN branch, or of none, from the teacher's weights. Raises ValueError for a head without a branch
    or a branch without one."""
    if (head is None) != (branch is None):
        raise ValueError("a head and the config's `adversarial` belong together: give both or neither")
    return JudgingCritic(copy.deepcopy(teacher).requires_grad_(True), head, 0 if branch is None else branch.layer)


class DMDTask:
    """DMD2 (arXiv:2405.14867) and f-distill (arXiv:2502.15681): the student's few steps against teacher and critic.

    student: starts from the teacher's weights. head: from features of the critic's layer to logits, where there is a
    GAN branch.
    """

    averaged = "student"

    def __init__(
        self, student: nn.Module, teacher: nn.Module, draw: Draw, config: DMDConfig, *, head: nn.Module | None = None
    ) -> None:
        self.critic = judging_critic(teacher, head, config.adversarial)
        self.modules: Mapping[str, nn.Module] = {"student": student, "critic": self.critic}
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
            with held(self.critic):
                logits = self.critic.logits(add_noise(x, noise, sigma), sigma, cond)
            adversarial = branch.student_weight * generator_loss(logits)
            if self.config.divergence is not None:
                weight = f_weights(logits, self.config.divergence)
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
        return loss + self.critic.judgement(noised_real, fake, sigma, cond, branch, generator)

    def _generated(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Conditioning]:
        """(the student's samples, real ones, their conditioning): from a step of its own, drawn at random, on what it
        would meet there."""
        real, cond = self.draw(self.config.student.size, generator)
        stage = int(torch.randint(self.config.student.num_steps, (1,), generator=generator))
        x = backward_simulated(self.student, randn_like(real, generator), cond, self.levels, stage, generator)
        return predict_x0(self.student, x, self.levels[stage].expand(len(x)), cond), real, cond

    def _sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        low, high = self.config.sigma_range
        return uniform_sigma(batch, generator, low=low, high=high, shift=self.config.sigma_shift)


class LADDTask:
    """LADD (arXiv:2403.12015): the student against heads on the frozen teacher's features. heads: by layer, from its
    features to logits. Real samples are drawn; the paper's are the teacher's own, which `draw` may give."""

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
        self.judge = FeatureDiscriminator(teacher.requires_grad_(False), heads, Conditioning())
        self.modules: Mapping[str, nn.Module] = {"student": student, "heads": self.judge}
        self.optimised = {"student": 1.0, "heads": heads_lr_share}
        self.student: Network = student
        self.draw = draw
        self.config, self.few_step = config, few_step
        self.levels = few_step.levels

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        real, cond = self.draw(self.few_step.size, generator)
        self.judge.cond = cond
        sigma = judged_levels(len(real), generator, self.config)
        noises = randn_like(real, generator), randn_like(real, generator)
        stage = int(torch.randint(self.few_step.num_steps, (1,), generator=generator))
        x = backward_simulated(self.student, randn_like(real, generator), cond, self.levels, stage, generator)
        fake = predict_x0(self.student, x, self.levels[stage].expand(len(x)), cond)
        with held(self.judge):
            loss = ladd_student_loss(self.judge, fake, noises[0], sigma)
        yield "student", loss, {}
        yield "heads", ladd_discriminator_loss(self.judge, real, fake.detach(), noises, sigma), {}


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """What is computed inside leaves no gradient in the module's weights, but passes it on."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
