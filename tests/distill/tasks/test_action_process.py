"""The process with a known conditional law, and the training of every causal method's student on it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from benchmarks.distillation import causal_comparison, causal_methods
from benchmarks.distillation.causal_methods import CAUSAL_METHODS, CausalMethod, Pretrained, network, train
from benchmarks.distillation.comparison import in_turns
from benchmarks.distillation.process import (
    NUM_STEPS,
    WINDOW,
    ProcessClips,
    innovations,
    law_distance,
    process_config,
    rolled_out,
)
from distill.tasks.causal_ode import CausalODEConfig
from world.testing import tiny_transformer


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make batches small, and solve few of the teacher's trajectories."""
    monkeypatch.setattr(causal_methods, "BATCH", 8)
    monkeypatch.setattr(
        causal_methods, "CausalODEConfig", lambda **fields: CausalODEConfig(**fields | {"num_clips": 8})
    )


def drawn(seed: int, batch: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    clips = ProcessClips(WINDOW + NUM_STEPS).draw(batch, torch.Generator().manual_seed(seed))
    return clips.latents, clips.actions


def test_innovations_of_the_process_are_independent_and_normal_and_wrong_actions_show() -> None:
    latents, actions = drawn(0)
    found = innovations(latents, actions, WINDOW)
    assert found.shape == (4000, 2 + 2 * NUM_STEPS)
    torch.testing.assert_close(torch.cov(found.T), torch.eye(found.shape[1]), atol=0.12, rtol=0.0)
    floor = law_distance(latents, actions)
    assert floor < 0.05
    assert law_distance(latents, drawn(1)[1]) > 2 * floor, "the actions of other clips"
    assert law_distance(latents * 0.8, actions) > 2 * floor, "states shrunk towards the origin"


def test_a_rollout_keeps_its_context_and_is_reproducible() -> None:
    student = tiny_transformer(process_config())
    clips = ProcessClips(WINDOW + NUM_STEPS).draw(6, torch.Generator().manual_seed(0))
    one, again = (rolled_out(student, clips, 2, shift=1.0, renoise=True) for _ in range(2))
    assert torch.equal(one[:, :WINDOW], clips.latents[:, :WINDOW])
    assert one.shape == clips.latents.shape
    assert torch.equal(one, again)
    assert not torch.equal(one, rolled_out(student, clips, 2, shift=1.0, renoise=False))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("method", CAUSAL_METHODS, ids=lambda method: method.name)
def test_every_causal_method_trains_its_student_and_no_pretrained_network(method: CausalMethod) -> None:
    pretrained = Pretrained(teacher=tiny_transformer(process_config(), 1), causal=tiny_transformer(process_config(), 2))
    before = [
        {name: value.clone() for name, value in n.state_dict().items()} for n in (pretrained.teacher, pretrained.causal)
    ]
    student = train(method.make(pretrained), 3, warmup_steps=1, **method.trainer)
    for one, old in zip((pretrained.teacher, pretrained.causal), before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in one.state_dict().items())
    assert any(not torch.equal(value, before[1][name]) for name, value in student.state_dict().items())
    assert all(bool(value.isfinite().all()) for value in student.state_dict().values())


@pytest.mark.usefixtures("small")
def test_pretrained_networks_are_trained_from_nothing() -> None:
    for task in (causal_methods.teacher_forcing(), causal_methods.diffusion_forcing()):
        assert bool(train(task, 3, warmup_steps=1).head.weight.any())
    assert bool(train(causal_methods.bidirectional_teacher(network()), 3, warmup_steps=1).head.weight.any())


@pytest.mark.usefixtures("small")
def test_the_comparison_has_every_method_at_its_numbers_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal_comparison, "NUM_ROLLOUTS", 16)
    monkeypatch.setattr(causal_comparison, "in_turns", partial(in_turns, rounds=1))
    table: dict[str, list[int]] = {}
    for row in causal_comparison.compare_causal(2):
        assert torch.tensor(row.quality["law_distance"]).isfinite()
        assert row.train_steps == 2
        table.setdefault(row.method, []).append(row.num_steps)
    students = {name: [1, 2, 4] for name in ("diffusion_forcing", *(method.name for method in CAUSAL_METHODS))}
    assert table == {"teacher": [2, 4, 8, 16, 32, 50]} | students
