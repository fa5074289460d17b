"""Tasks: which loss updates which network, and that every method trains its student."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.distillation.densities import eight_gaussians, point_setting
from benchmarks.distillation.methods import METHODS
from benchmarks.distillation.perceptron import Perceptron
from benchmarks.distillation.settings import Method
from distill.data.latents import ClipSampler
from distill.methods.adapters import TrigFlow
from distill.methods.continuous_consistency import ContinuousConfig
from distill.methods.distribution_matching import dmd_gradient
from distill.methods.f_distill import FDistillConfig
from distill.methods.latent_adversarial import LADDConfig
from distill.tasks.continuous_consistency import ContinuousConsistencyTask
from distill.tasks.critic import AdversarialConfig, critic_with_head
from distill.tasks.dmd import DMDConfig, DMDTask, FewStepConfig
from distill.tasks.ladd import LADDTask
from distill.tasks.self_forcing import SelfForcingConfig, SelfForcingTask
from distill.tasks.student import BatchConfig
from distill.training.task import Task
from world.model.patterns import Bidirectional
from world.model.transformer import Conditioning
from world.testing import CONFIGS, tiny_transformer

SETTING = point_setting(
    eight_gaussians(), width=16, num_layers=2, num_steps=4, teacher_steps=2, batch=BatchConfig(size=32)
)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_changes_its_student_and_samples_in_any_number_of_steps(method: Method) -> None:
    teacher = SETTING.network().requires_grad_(False)
    nn.init.normal_(teacher.last.weight, std=0.1)  # its output is not zero
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = method.train(SETTING, teacher)
    after = student.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items()), (
        "the teacher does not change"
    )
    noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    make = method.sampler(student, noise)
    for steps in (1, 2, 4):
        assert make(steps).shape == (8, 2)
        assert bool(make(steps).isfinite().all())
    assert torch.equal(make(2), make(2)), "the same noise gives the same samples"


def gan_task(**changes: object) -> DMDTask:
    teacher = SETTING.network()
    config = DMDConfig(student=FewStepConfig(num_steps=2, size=16), critic_updates=2, **changes)  # type: ignore[arg-type]
    head = SETTING.head() if config.adversarial is not None else None
    return DMDTask(SETTING.network(), teacher, SETTING.draw, config, head=head)


def update_order(task: Task, of_critic: set[str]) -> list[str]:
    """Return which networks the losses update, in order. No loss may leave a gradient in the other network; the
    critic's loss must reach the weights `of_critic`."""
    names = []
    for name, loss, _ in task.losses(0, torch.Generator().manual_seed(0)):
        loss.backward()
        names.append(name)
        other = task.modules["critic" if name == "student" else "student"]
        assert all(weight.grad is None or not weight.grad.any() for weight in other.parameters())
        updated = {n for n, weight in task.modules[name].named_parameters() if weight.grad is not None}
        assert name == "student" or of_critic <= updated
        for module in task.modules.values():
            module.zero_grad(set_to_none=True)
    return names


@pytest.mark.parametrize("divergence", [None, FDistillConfig()])
def test_the_students_loss_leaves_no_gradient_in_the_critic_nor_the_critics_in_the_student(
    divergence: FDistillConfig | None,
) -> None:
    task = gan_task(adversarial=AdversarialConfig(student_weight=1.0, r1_weight=0.1), divergence=divergence)
    names = update_order(task, {"head.0.weight", "network.last.weight"})
    assert names == ["critic", "critic", "student"]
    assert all(weight.requires_grad for weight in task.modules["critic"].parameters()), (
        "frozen only during the student's loss"
    )


def test_the_discriminator_heads_of_ladd_learn_from_their_loss_only() -> None:
    heads: dict[int, nn.Module] = {0: SETTING.head(), 1: SETTING.head()}
    student, teacher = SETTING.network(), SETTING.network()
    task = LADDTask(student, teacher, SETTING.draw, LADDConfig(), FewStepConfig(size=16), heads)
    losses = task.losses(0, torch.Generator().manual_seed(0))
    next(losses)[1].backward()
    assert all(weight.grad is None for weight in task.modules["heads"].parameters())
    assert any(weight.grad is not None and weight.grad.any() for weight in student.parameters())
    student.zero_grad(set_to_none=True)
    next(losses)[1].backward()
    assert all(weight.grad is not None for weight in task.modules["heads"].parameters())
    assert all(weight.grad is None for weight in student.parameters())
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_learned_weighting_of_levels_weighs_the_students_loss_and_learns_from_its_own_only() -> None:
    student, config = SETTING.network(), ContinuousConfig()
    task = ContinuousConsistencyTask(student, SETTING.draw, BatchConfig(size=64), config, teacher=SETTING.network())
    nn.init.normal_(student.last.weight, std=0.1)
    nn.init.constant_(task.weighting.linear.bias, 0.5)
    losses = task.losses(0, torch.Generator().manual_seed(0))
    name, loss, metrics = next(losses)
    assert name == "student"
    assert float(loss.detach()) == pytest.approx(math.exp(0.5) * metrics["unweighted_loss"], rel=1e-5)
    loss.backward()
    assert all(weight.grad is None for weight in task.weighting.parameters())
    name, loss, _ = next(losses)
    assert name == "weighting"
    student.zero_grad(set_to_none=True)
    loss.backward()
    assert all(weight.grad is None for weight in student.parameters())
    slope = task.weighting.linear.bias.grad
    assert slope is not None
    assert float(slope) == pytest.approx(math.exp(0.5) * metrics["unweighted_loss"] - 1, rel=1e-5)


def _self_forcing(path: Path, **changes: object) -> SelfForcingTask:
    config = CONFIGS["pixel"][1]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(200, config.channels, config.height, config.width, generator=generator)
    torch.save([(latents.half(), torch.zeros(200, config.action_dim).half())], path)
    torch.manual_seed(0)
    head = nn.Linear(config.dim, 1) if "adversarial" in changes else None
    task = SelfForcingTask(
        tiny_transformer(config, 0),
        tiny_transformer(config, 1),
        ClipSampler(path, 13),
        SelfForcingConfig(batch_size=4, new_frames=(2, 3), critic_updates=1, **changes),  # type: ignore[arg-type]
        head=head,
    )
    with torch.no_grad():
        task.critic.network.head.bias.add_(0.1)  # type: ignore[union-attr,operator]  # the critic differs from the teacher
    return task


def test_self_forcing_weights_each_rollout_by_its_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reverse KL it is DMD itself; otherwise the gradient of each clip is multiplied by its weight."""
    weights: list[Tensor | None] = []

    def recorded(*args: object, weight: Tensor | None = None) -> Tensor:
        weights.append(weight)
        return dmd_gradient(*args, weight=weight)  # type: ignore[arg-type]

    monkeypatch.setattr("distill.tasks.self_forcing.dmd_gradient", recorded)
    branch = AdversarialConfig(student_weight=0.0)
    found = {}
    for name in ("reverse_kl", "forward_kl"):
        divergence = FDistillConfig(divergence=name, ratio_range=(1e-3, 1e3), normalised=False)
        task = _self_forcing(tmp_path / "train.pt", adversarial=branch, divergence=divergence)
        found[name] = next(task.losses(0, torch.Generator().manual_seed(0)))[1].detach()
    plain = next(_self_forcing(tmp_path / "train.pt").losses(0, torch.Generator().manual_seed(0)))[1].detach()
    ones, ratios, none = weights
    assert none is None
    assert torch.equal(ones, torch.ones(4))  # type: ignore[arg-type]  # a weight was given
    assert ratios is not None
    assert ratios.std() > 0
    assert torch.allclose(found["reverse_kl"], plain)
    assert not torch.allclose(found["forward_kl"], plain)


def test_the_critic_and_the_student_of_self_forcing_learn_from_their_losses_only(tmp_path: Path) -> None:
    branch = AdversarialConfig(student_weight=1.0, r1_weight=0.1)
    task = _self_forcing(tmp_path / "train.pt", adversarial=branch, divergence=FDistillConfig())
    names = update_order(task, {"head.weight", "network.head.weight"})
    assert names == ["student", "critic"]


def test_the_discriminator_reads_the_middle_layer_unless_told_otherwise() -> None:
    """DMD2 (arXiv:2405.14867, §4.3) reads the bottleneck of its UNet."""
    network = Perceptron(2, width=16, num_layers=6)
    assert critic_with_head(network, SETTING.head(), AdversarialConfig()).layer == 3
    assert critic_with_head(network, SETTING.head(), AdversarialConfig(layer=5)).layer == 5
    deep = tiny_transformer(replace(CONFIGS["pixel"][1], num_layers=5))
    assert critic_with_head(deep, SETTING.head(), AdversarialConfig()).layer == 2
    adapted = TrigFlow(nn.Linear(1, 1), layers=("down", "middle", "up"))
    assert critic_with_head(adapted, SETTING.head(), AdversarialConfig()).layer == 1
    with pytest.raises(ValueError, match="Linear does not say how many layers"):
        critic_with_head(nn.Linear(1, 1), SETTING.head(), AdversarialConfig())


@pytest.mark.parametrize("self_forcing", [False, True])
def test_f_distill_normalises_the_ratio_by_means_that_are_saved(self_forcing: bool, tmp_path: Path) -> None:
    changes = {"adversarial": AdversarialConfig(), "divergence": FDistillConfig()}
    task: Task = _self_forcing(tmp_path / "train.pt", **changes) if self_forcing else gan_task(**changes)
    for name, _, _ in task.losses(0, torch.Generator().manual_seed(0)):
        if name == "student":
            break
    means = task.modules["divergence"].state_dict()["means"]
    assert bool((means != 1).any())
    assert "divergence" not in gan_task(adversarial=AdversarialConfig()).modules


def test_inconsistent_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="reads the density ratio off a discriminator"):
        DMDConfig(divergence=FDistillConfig())
    with pytest.raises(ValueError, match="belong together"):
        DMDTask(SETTING.network(), SETTING.network(), SETTING.draw, DMDConfig(), head=SETTING.head())
    with pytest.raises(ValueError, match="reads the density ratio off a discriminator"):
        SelfForcingConfig(divergence=FDistillConfig())
    with pytest.raises(ValueError, match="scores whole clips"):
        SelfForcingConfig(adversarial=AdversarialConfig(), causal_scores=True)
    with pytest.raises(ValueError, match="takes no attention pattern"):
        Perceptron(2)(torch.zeros(1, 2), torch.zeros(1), Conditioning(), pattern=Bidirectional())
