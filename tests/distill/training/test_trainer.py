"""The training loop: an interrupted run equals an uninterrupted one to the bit, for every stage."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from distill.data.latents import ClipSampler
from distill.methods.f_distill import FDistillConfig
from distill.tasks.causal_consistency import ConsistencyConfig, ConsistencyTask
from distill.tasks.context_corruption import ContextCorruption
from distill.tasks.critic import AdversarialConfig
from distill.tasks.self_forcing import SelfForcingConfig, SelfForcingTask
from distill.tasks.teacher import TeacherConfig, TeacherTask
from distill.tasks.teacher_forcing import TeacherForcingConfig, TeacherForcingTask
from distill.training.checks import TrainingError
from distill.training.state import load_product, trained_steps
from distill.training.task import Task
from distill.training.trainer import Trainer, TrainerConfig, lr_share
from world.testing import CONFIGS, tiny_transformer

NUM_STEPS = 4
CONFIG = TrainerConfig(num_steps=NUM_STEPS, warmup_steps=2, save_every=2, log_every=1, ema_decay=0.9)


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    """Return a file with three streams of 40 random latents and actions."""
    generator = torch.Generator().manual_seed(0)
    streams = [
        (
            torch.randn(40, 4, 2, 2, generator=generator).half(),
            (torch.rand(40, 2, generator=generator) < 0.5).half(),
        )
        for _ in range(3)
    ]
    torch.save(streams, tmp_path / "train.pt")
    return tmp_path / "train.pt"


def _teacher(latents: Path, seed: int) -> Task:
    return TeacherTask(
        tiny_transformer(CONFIGS["pixel"][1], seed), ClipSampler(latents, 6), TeacherConfig(batch_size=3)
    )


def _teacher_forced(latents: Path, seed: int) -> Task:
    student = tiny_transformer(CONFIGS["pixel"][1], seed)
    return TeacherForcingTask(
        student, ClipSampler(latents, 6), TeacherForcingConfig(batch_size=3, corruption=ContextCorruption())
    )


def _few_step(latents: Path, seed: int) -> Task:
    student, teacher = tiny_transformer(CONFIGS["pixel"][1], seed), tiny_transformer(CONFIGS["pixel"][1], 7)
    return ConsistencyTask(student, teacher, ClipSampler(latents, 6), ConsistencyConfig(batch_size=3, num_levels=4))


def _distilled(latents: Path, seed: int) -> Task:
    student, teacher = tiny_transformer(CONFIGS["pixel"][1], seed), tiny_transformer(CONFIGS["pixel"][1], 7)
    config = SelfForcingConfig(batch_size=2, new_frames=(2, 3))
    return SelfForcingTask(student, teacher, ClipSampler(latents, 13), config)


def _distilled_causally(latents: Path, seed: int) -> Task:
    student, teacher = tiny_transformer(CONFIGS["pixel"][1], seed), tiny_transformer(CONFIGS["pixel"][1], 7)
    config = SelfForcingConfig(batch_size=2, new_frames=(2, 3), causal_scores=True)
    return SelfForcingTask(student, teacher, ClipSampler(latents, 13), config)


def _distilled_with_a_discriminator(latents: Path, seed: int) -> Task:
    student, teacher = tiny_transformer(CONFIGS["pixel"][1], seed), tiny_transformer(CONFIGS["pixel"][1], 7)
    config = SelfForcingConfig(
        batch_size=2,
        new_frames=(2, 3),
        adversarial=AdversarialConfig(r1_weight=0.1),
        divergence=FDistillConfig(divergence="forward_kl"),
    )
    torch.manual_seed(seed)
    head = nn.Linear(student.config.dim, 1)
    return SelfForcingTask(student, teacher, ClipSampler(latents, 13), config, head=head)


STAGES: dict[str, Callable[[Path, int], Task]] = {
    "teacher": _teacher,
    "teacher_forced": _teacher_forced,
    "few_step": _few_step,
    "distilled": _distilled,
    "distilled causally": _distilled_causally,
    "distilled with a discriminator": _distilled_with_a_discriminator,
}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Callable[[Path, int], Task]:
    return STAGES[request.param]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _tensors(value[key])
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)


def _saved(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "state.pt", weights_only=True)
    return state


def _assert_same_run(ours: Path, theirs: Path) -> None:
    """Assert that weights, optimiser moments and averages are equal, to the bit."""
    first, second = _saved(ours), _saved(theirs)
    assert first["step"] == second["step"] == NUM_STEPS
    pairs = list(zip(_tensors(first), _tensors(second), strict=True))
    assert len(pairs) > 20
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_run_stopped_after_every_step_equals_an_uninterrupted_one(
    stage: Callable[[Path, int], Task], latents: Path, tmp_path: Path
) -> None:
    assert Trainer(stage(latents, 0), CONFIG, tmp_path / "uninterrupted").run(quiet=True)
    finished = [
        Trainer(stage(latents, seed), CONFIG, tmp_path / "pieces").run(stop_after_s=0.0, quiet=True)
        for seed in range(
            NUM_STEPS
        )  # a resumed run takes its weights from the file, so the initial ones must not matter
    ]
    assert finished == [False] * (NUM_STEPS - 1) + [True]
    _assert_same_run(tmp_path / "pieces", tmp_path / "uninterrupted")


def test_a_run_that_crashed_between_saves_equals_an_uninterrupted_one(
    stage: Callable[[Path, int], Task], latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(stage(latents, 0), CONFIG, tmp_path / "uninterrupted").run(quiet=True)
    task = stage(latents, 0)
    losses = task.losses

    def failing(step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        if step == 3:  # the third step is done, but not saved
            raise KeyboardInterrupt
        return losses(step, generator)

    monkeypatch.setattr(task, "losses", failing)
    with pytest.raises(KeyboardInterrupt):
        Trainer(task, CONFIG, tmp_path / "crashed").run(quiet=True)
    assert _saved(tmp_path / "crashed")["step"] == 2
    Trainer(stage(latents, 1), CONFIG, tmp_path / "crashed").run(quiet=True)
    _assert_same_run(tmp_path / "crashed", tmp_path / "uninterrupted")


def test_every_stage_changes_only_the_modules_it_optimises(
    stage: Callable[[Path, int], Task], latents: Path, tmp_path: Path
) -> None:
    task = stage(latents, 0)
    teacher = getattr(task, "teacher", None)
    before = {name: [p.detach().clone() for p in module.parameters()] for name, module in task.modules.items()}
    teacher_before = [] if teacher is None else [p.detach().clone() for p in teacher.parameters()]
    Trainer(task, CONFIG, tmp_path / "run").run(quiet=True)
    for name in task.optimised:
        moved = [not torch.equal(a, b) for a, b in zip(before[name], task.modules[name].parameters(), strict=True)]
        assert sum(moved) > len(moved) / 2, name
    if teacher is not None:
        assert all(torch.equal(a, b) for a, b in zip(teacher_before, teacher.parameters(), strict=True))
        assert all(p.grad is None for p in teacher.parameters())


def test_a_finished_run_does_nothing(latents: Path, tmp_path: Path) -> None:
    Trainer(_teacher(latents, 0), CONFIG, tmp_path / "run").run(quiet=True)
    stamp = (tmp_path / "run" / "state.pt").stat().st_mtime_ns
    assert Trainer(_teacher(latents, 1), CONFIG, tmp_path / "run").run(quiet=True)
    assert (tmp_path / "run" / "state.pt").stat().st_mtime_ns == stamp


def test_metrics_are_written_step_by_step(latents: Path, tmp_path: Path) -> None:
    Trainer(_distilled(latents, 0), CONFIG, tmp_path / "run").run(quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    assert {"student_loss", "critic_loss", "student_grad", "critic_grad", "lr_share"} <= lines[0].keys()


class Line(nn.Module):
    """A weight vector whose gradients are known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


class LineTask:
    """The loss is draw · weight, so the gradient is the draw."""

    optimised: ClassVar = {"line": 1.0}
    averaged = "line"

    def __init__(self) -> None:
        self.modules: Mapping[str, nn.Module] = {"line": Line()}
        self.draws: list[Tensor] = []
        self.poisoned_step, self.poisoned_from = -1, 10**9

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        self.draws.append(torch.randn(3, generator=generator))
        factor = torch.nan if step == self.poisoned_step or step >= self.poisoned_from else 1.0
        (weight,) = self.modules["line"].parameters()
        yield "line", (self.draws[-1] * weight * factor).sum(), {}


def test_accumulated_parts_draw_independently_and_count_as_their_mean(tmp_path: Path) -> None:
    task = LineTask()
    Trainer(task, TrainerConfig(num_steps=2, accumulate=3, log_every=1, clip_norm=1e9), tmp_path).run(quiet=True)
    assert len({tuple(draw.tolist()) for draw in task.draws}) == 6, "every part of every step draws independently"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line, draws in zip(lines, (task.draws[:3], task.draws[3:]), strict=True):
        assert line["line_grad"] == pytest.approx(float(torch.stack(draws).mean(0).norm()), rel=1e-5)


class StudentAndCritic:
    """A critic with three updates a step, and a student with one and a target. Every gradient is (1, 1, 1), whatever
    the draw."""

    optimised: ClassVar = {"critic": 1.0, "student": 1.0}
    averaged = "student"

    def __init__(self) -> None:
        self.modules: Mapping[str, nn.Module] = {"critic": Line(), "student": Line(), "target": Line()}
        self.seen: list[tuple[str, Tensor]] = []

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        for name in ("critic", "critic", "critic", "student"):
            (weight,) = self.modules[name].parameters()
            self.seen.append((name, weight.detach().clone()))
            yield name, weight.sum(), {}

    @torch.no_grad()
    def follow(self) -> None:
        target, student = (next(self.modules[name].parameters()) for name in ("target", "student"))
        target.lerp_(student, 0.5)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_every_update_of_a_step_has_the_mean_gradient_and_targets_move_once(tmp_path: Path, accumulate: int) -> None:
    task = StudentAndCritic()
    config = TrainerConfig(
        num_steps=1, accumulate=accumulate, lr=1.0, warmup_steps=1, weight_decay=0.0, clip_norm=1e9, betas=(0.0, 0.0)
    )
    trainer = Trainer(task, config, tmp_path)
    gradients: list[float] = []
    for name in ("critic", "student"):
        weight = next(task.modules[name].parameters())
        trainer.optimisers[name].register_step_pre_hook(lambda *_, w=weight: gradients.append(float(w.grad.mean())))
    trainer.run(quiet=True)
    assert gradients == [1.0] * 4
    # with betas of 0 an update of AdamW is the sign of the gradient
    critic = [float(weight.mean()) for name, weight in task.seen if name == "critic"]
    assert critic == pytest.approx([0.0] * accumulate + [-1.0] * accumulate + [-2.0] * accumulate, abs=1e-6)
    values = {name: float(next(module.parameters()).detach().mean()) for name, module in task.modules.items()}
    assert values == pytest.approx({"critic": -3.0, "student": -1.0, "target": -0.5}, abs=1e-6)


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    clipped, free = LineTask(), LineTask()
    for task, name, norm in ((clipped, "clipped", 0.01), (free, "free", 1e9)):
        trainer = Trainer(task, TrainerConfig(num_steps=1, clip_norm=norm), tmp_path / name)
        trainer.run(quiet=True)
        (moment,) = (state["exp_avg"] for state in trainer.optimisers["line"].state.values())
        expected = task.draws[0] * 0.1 if name == "free" else task.draws[0] / task.draws[0].norm() * 0.01 * 0.1
        torch.testing.assert_close(moment, expected)


def test_a_gradient_that_is_not_finite_is_skipped_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = LineTask()
    task.poisoned_step = 1
    trainer = Trainer(task, TrainerConfig(num_steps=3), tmp_path)
    with caplog.at_level(logging.WARNING):
        trainer.run(quiet=True)
    assert "step 1: gradient of line is not finite" in caplog.text
    assert all(torch.isfinite(value).all() for value in _tensors(_saved(tmp_path)))


@pytest.mark.parametrize("weight", [1.0, torch.nan])
def test_training_that_is_stopped_at_a_skipped_update_is_saved_if_its_weights_are_finite(
    tmp_path: Path, weight: float
) -> None:
    task = LineTask()
    task.poisoned_step = 1
    trainer = Trainer(task, TrainerConfig(num_steps=100), tmp_path)
    trainer.run(stop_after_s=0.0, quiet=True)
    with torch.no_grad():
        next(task.modules["line"].parameters()).mul_(weight)
    assert not trainer.run(stop_after_s=0.0, quiet=True)
    assert trained_steps(tmp_path) == (2 if weight == 1.0 else 1)


def test_too_many_updates_that_are_not_finite_stop_training_and_keep_the_state_before(tmp_path: Path) -> None:
    task = LineTask()
    task.poisoned_from = 5
    config = TrainerConfig(num_steps=100, save_every=1)
    with pytest.raises(TrainingError, match=r"step 14: the last 10 updates of line .*loss of line is nan.*weight"):
        Trainer(task, config, tmp_path).run(quiet=True)
    assert _saved(tmp_path)["step"] == 5


def test_a_short_run_does_not_finish_without_an_update(tmp_path: Path) -> None:
    task = LineTask()
    task.poisoned_from = 0
    with pytest.raises(TrainingError, match="the last 3 updates of line were not finite"):
        Trainer(task, TrainerConfig(num_steps=3), tmp_path).run(quiet=True)
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("field", ["num_steps", "accumulate", "save_every", "log_every"])
def test_counts_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} 0: must be at least 1"):
        replace(TrainerConfig(num_steps=1), **{field: 0})  # type: ignore[arg-type]  # all are counts


def test_the_product_is_the_moving_average(tmp_path: Path) -> None:
    task = LineTask()
    config = TrainerConfig(num_steps=5, ema_decay=0.5)
    weights: list[Tensor] = []
    trainer = Trainer(task, config, tmp_path)
    (parameter,) = task.modules["line"].parameters()
    expected = torch.zeros(3)
    for _ in range(5):
        trainer.run(stop_after_s=0.0, quiet=True)
        weights.append(parameter.detach().clone())
    for step, weight in enumerate(weights):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    product, step = load_product(tmp_path)
    assert step == 5
    torch.testing.assert_close(product["weight"], expected)
    assert not torch.equal(product["weight"], weights[-1])


def test_the_learning_rate_warms_up_stays_and_decays() -> None:
    config = TrainerConfig(num_steps=100, warmup_steps=10, decay_share=0.4, final_lr_share=0.02)
    shares = [lr_share(step, config) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:61] == [1.0] * 52
    assert shares[60] > shares[70] > shares[90] > shares[100]
    assert shares[80] == pytest.approx(0.51)
    assert shares[100] == pytest.approx(0.02)
