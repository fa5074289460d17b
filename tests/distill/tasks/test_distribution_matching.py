"""Self-Forcing and CausVid: the official recipes, fresh samples for every update, and what stands in the cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.methods.causvid import causvid_samples
from distill.methods.distribution_matching import critic_loss
from distill.methods.self_rollout import RollingCache, context_frames, self_rollout
from distill.tasks import causvid, self_forcing
from distill.tasks.causvid import CausVidConfig, CausVidTask
from distill.tasks.self_forcing import SelfForcingConfig, SelfForcingTask
from distill.training.task import Task
from tests.distill.tasks.random_clips import RandomClips
from world.model.schedule import sampling_sigmas
from world.testing import CONFIGS, tiny_transformer

CONFIG = CONFIGS["pixel"][1]


def self_forcing_task(**changes: Any) -> SelfForcingTask:
    config = SelfForcingConfig(batch_size=3, new_frames=(2, 3), **changes)
    return SelfForcingTask(tiny_transformer(CONFIG, 0), tiny_transformer(CONFIG, 1), RandomClips(CONFIG, 13), config)


def causvid_task(**changes: Any) -> CausVidTask:
    config = CausVidConfig(**{"batch_size": 3} | changes)
    return CausVidTask(tiny_transformer(CONFIG, 0), tiny_transformer(CONFIG, 1), RandomClips(CONFIG, 8), config)


def scored_clips(task: Task, module: Any, patch: pytest.MonkeyPatch) -> list[Tensor]:
    """Run a training step in which the student's update moves its weights; return the clips of each critic update."""
    seen: list[Tensor] = []

    def record(critic: Any, x: Tensor, *rest: Any) -> Tensor:
        seen.append(x)
        return critic_loss(critic, x, *rest)

    patch.setattr(module, "critic_loss", record)
    names = []
    for name, loss, _ in task.losses(0, torch.Generator().manual_seed(0)):
        names.append(name)
        loss.backward()
        if name == "student":
            with torch.no_grad():
                for weight in task.modules["student"].parameters():
                    weight.add_(0.01)
    assert names == ["student"] + ["critic"] * len(seen)
    return seen


def test_the_defaults_are_the_official_recipes() -> None:
    """Self-Forcing's configs/self_forcing_dmd.yaml: lr 2e-6, lr_critic 4e-7, dfake_gen_update_ratio 5, context_noise 0.
    CausVid's configs/wan_causal_dmd.yaml: lr 2e-6 of both networks. Levels in both: 0.02 to 0.98 of the schedule."""
    official = self_forcing_task()
    assert official.optimised["critic"] == pytest.approx(4e-7 / 2e-6)
    assert (official.config.critic_updates, official.config.sigma_range) == (5, (0.02, 0.98))
    assert (official.config.fresh_rollouts, official.config.context_sigma) == (True, 0.0)
    other = causvid_task()
    assert other.optimised["critic"] == 1.0
    assert (other.config.critic_updates, other.config.sigma_range) == (5, (0.02, 0.98))


@pytest.mark.parametrize("causal_scores", [False, True])
def test_each_critic_update_of_self_forcing_has_fresh_rollouts(
    causal_scores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = scored_clips(self_forcing_task(causal_scores=causal_scores), self_forcing, monkeypatch)
    assert len(clips) == 5
    assert len({float(clip[:, -1].sum()) for clip in clips}) == 5
    assert not any(clip.requires_grad for clip in clips)
    shared = scored_clips(self_forcing_task(fresh_rollouts=False, critic_updates=2), self_forcing, monkeypatch)
    assert torch.equal(*shared)


def test_each_critic_update_of_causvid_has_fresh_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = scored_clips(causvid_task(), causvid, monkeypatch)
    assert len({float(clip.sum()) for clip in clips}) == 5
    assert not any(clip.requires_grad for clip in clips)


def test_generated_frames_of_causvid_are_at_every_level_of_the_grid_and_at_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []

    def record(student: Any, x0: Tensor, noise: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
        seen.append(sigma)
        return causvid_samples(student, x0, noise, sigma, *rest)

    monkeypatch.setattr(causvid, "causvid_samples", record)
    task = causvid_task(batch_size=400, num_steps=3, critic_updates=0)
    next(task.losses(0, torch.Generator().manual_seed(0)))
    last = seen[0][:, -1]  # after every prefix
    assert len(task.levels) == 4
    for level in task.levels:
        assert float((last == level).float().mean()) == pytest.approx(0.25, abs=0.08)


def test_context_and_generated_frames_stand_in_the_cache_at_the_context_level() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append((args[0], args[1]))

    task = self_forcing_task(context_sigma=0.1, num_steps=1, critic_updates=0)
    task.student.register_forward_pre_hook(record)
    next(task.losses(0, torch.Generator().manual_seed(0)))
    expected = torch.tensor(0.1)
    (_, prefill), *passes = seen
    assert bool((prefill == expected).all())
    assert len(passes) % 2 == 0, "denoised, then written into the cache"
    assert all(bool((level == 1).all()) for _, level in passes[::2])
    assert all(bool((level == expected).all()) for _, level in passes[1::2])


def test_context_frames_are_noised_to_their_level() -> None:
    frames = torch.full((2, 500, 1, 4, 4), 3.0)
    noised, level = context_frames(frames, 0.2, torch.Generator().manual_seed(0))
    assert bool((level == torch.tensor(0.2)).all())
    assert float(noised.mean()) == pytest.approx(0.8 * 3.0, abs=0.02)
    assert float(noised.std()) == pytest.approx(0.2, abs=0.01)
    assert context_frames(frames, 0.0, torch.Generator())[0] is frames


def test_a_rollout_without_gradient_stops_at_its_exit_stage_all_the_same() -> None:
    """The critic's rollouts have the law of the student's."""
    network, clips = tiny_transformer(CONFIG), RandomClips(CONFIG, 7).draw(2, torch.Generator().manual_seed(0))
    before, after = clips.actions.split([4, 3], dim=1)
    cache = RollingCache.prefill(network, CONFIG, clips.latents[:, :4], before)

    def rollout() -> Tensor:
        return self_rollout(network, cache, after, sampling_sigmas(2, 6.0), 0, torch.Generator().manual_seed(1))

    with torch.no_grad():
        alone = rollout()
    assert not alone.requires_grad
    torch.testing.assert_close(alone, rollout().detach(), atol=1e-4, rtol=0)
