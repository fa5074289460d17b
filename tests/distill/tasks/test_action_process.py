"""The process whose conditional law is known, and that every causal method trains its student on it."""

from __future__ import annotations

import pytest
import torch

from benchmarks.distillation import causal_comparison, causal_methods
from benchmarks.distillation.causal_methods import CAUSAL_METHODS, CausalMethod, Pretrained, network, train
from benchmarks.distillation.process import (
    NUM_STEPS,
    WINDOW,
    ProcessClips,
    innovations,
    law_distance,
    process_config,
    rolled_out,
)
from world.testing import tiny_transformer


def drawn(seed: int, batch: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    clips = ProcessClips(WINDOW + NUM_STEPS).draw(batch, torch.Generator().manual_seed(seed))
    return clips.latents, clips.actions


def test_the_processs_own_innovations_are_independent_and_normal_and_other_actions_are_noticed() -> None:
    latents, actions = drawn(0)
    own = innovations(latents, actions, WINDOW)
    assert own.shape == (4000, 2 + 2 * NUM_STEPS)
    torch.testing.assert_close(torch.cov(own.T), torch.eye(own.shape[1]), atol=0.12, rtol=0.0)
    floor = law_distance(latents, actions)
    assert floor < 0.05
    assert law_distance(latents, drawn(1)[1]) > 2 * floor, "led by other actions"
    assert law_distance(latents * 0.8, actions) > 2 * floor, "drawn to the middle"


def test_a_rollout_keeps_its_context_and_follows_from_the_same_noise() -> None:
    student = tiny_transformer(process_config())
    clips = ProcessClips(WINDOW + NUM_STEPS).draw(6, torch.Generator().manual_seed(0))
    one, again = (rolled_out(student, clips, 2, shift=1.0, renoise=True) for _ in range(2))
    assert torch.equal(one[:, :WINDOW], clips.latents[:, :WINDOW])
    assert one.shape == clips.latents.shape
    assert torch.equal(one, again)
    assert not torch.equal(one, rolled_out(student, clips, 2, shift=1.0, renoise=False))


@pytest.mark.parametrize("method", CAUSAL_METHODS, ids=lambda method: method.name)
def test_every_causal_method_trains_its_student_and_leaves_what_it_was_given(
    method: CausalMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal_methods, "BATCH", 8)
    given = Pretrained(teacher=tiny_transformer(process_config(), 1), causal=tiny_transformer(process_config(), 2))
    before = [{name: value.clone() for name, value in n.state_dict().items()} for n in (given.teacher, given.causal)]
    student = train(method.make(given), 3, warmup_steps=1, **method.trainer)
    for one, old in zip((given.teacher, given.causal), before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in one.state_dict().items())
    assert any(not torch.equal(value, before[1][name]) for name, value in student.state_dict().items())
    assert all(bool(value.isfinite().all()) for value in student.state_dict().values())


def test_what_they_start_from_is_trained_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal_methods, "BATCH", 8)
    for task in (causal_methods.teacher_forcing(), causal_methods.diffusion_forcing()):
        assert bool(train(task, 3, warmup_steps=1).head.weight.any())
    assert bool(train(causal_methods.bidirectional_teacher(network()), 3, warmup_steps=1).head.weight.any())


def test_the_comparison_has_every_method_at_its_numbers_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal_methods, "BATCH", 8)
    monkeypatch.setattr(causal_comparison, "NUM_ROLLOUTS", 16)
    table: dict[str, list[int]] = {}
    for row in causal_comparison.compare_causal(2):
        assert torch.tensor(row.quality["law_distance"]).isfinite()
        assert row.train_steps == 2
        table.setdefault(row.method, []).append(row.num_steps)
    students = {name: [1, 2, 4] for name in ("diffusion_forcing", *(method.name for method in CAUSAL_METHODS))}
    assert table == {"teacher": [2, 4, 8, 16, 32, 50]} | students
