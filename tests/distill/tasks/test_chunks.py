"""Tasks with chunks of three frames: what a method draws per chunk is the same for all frames of a chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distill.methods.diffusion_forcing import forced_levels
from distill.methods.knowledge_distillation import KnowledgeConfig
from distill.methods.sampling import by_chunk
from distill.methods.teacher_forcing import self_resampled
from distill.tasks.causal_consistency import ConsistencyConfig, ConsistencyTask
from distill.tasks.causal_ode import CausalODEConfig, CausalODETask, Variant
from distill.tasks.causvid import CausVidConfig, CausVidTask
from distill.tasks.context_corruption import ContextCorruption, LevelConfig
from distill.tasks.diffusion_forcing import DiffusionForcingConfig, DiffusionForcingTask
from distill.tasks.self_forcing import SelfForcingConfig, SelfForcingTask
from distill.tasks.teacher_forcing import TeacherForcingConfig, TeacherForcingTask
from distill.training.task import Task
from tests.distill.tasks.random_clips import RandomClips
from world.model.patterns import TeacherForcing
from world.model.transformer import Transformer
from world.testing import CONFIGS, tiny_transformer

CHUNK = 3
CONFIG = replace(CONFIGS["pixel"][1], chunk_frames=CHUNK, window_frames=3 * CHUNK)


def causal_ode(student: Transformer, teacher: Transformer, clips: RandomClips, variant: Variant) -> Task:
    path = KnowledgeConfig(num_steps=4, substeps=1)
    return CausalODETask(
        student, teacher, clips, CausalODEConfig(variant=variant, batch_size=4, num_clips=4, path=path)
    )


Make = Callable[[Transformer, Transformer, RandomClips], Task]
TASKS: dict[str, Make] = {
    "teacher_forcing": lambda student, _, clips: TeacherForcingTask(
        student, clips, TeacherForcingConfig(batch_size=4, corruption=ContextCorruption(resampled_share=0.5))
    ),
    "diffusion_forcing": lambda student, _, clips: DiffusionForcingTask(
        student, clips, DiffusionForcingConfig(batch_size=4)
    ),
    "consistency": lambda student, teacher, clips: ConsistencyTask(
        student, teacher, clips, ConsistencyConfig(batch_size=4)
    ),
    "causal_ode": lambda student, teacher, clips: causal_ode(student, teacher, clips, "noisy_past"),
    "causal_ode_clean_past": lambda student, teacher, clips: causal_ode(student, teacher, clips, "clean_past"),
    "causal_ode_causal_teacher": lambda student, teacher, clips: causal_ode(student, teacher, clips, "causal_teacher"),
    "causvid": lambda student, teacher, clips: CausVidTask(
        student, teacher, clips, CausVidConfig(batch_size=4, num_steps=4)
    ),
    "self_forcing": lambda student, teacher, clips: SelfForcingTask(
        student, teacher, clips, SelfForcingConfig(batch_size=4, new_frames=(9, 9), causal_scores=True)
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_frames_of_a_chunk_have_one_noise_level_and_chunks_have_several(name: str) -> None:
    seen: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[1])

    student, teacher = tiny_transformer(CONFIG, 0), tiny_transformer(CONFIG, 1)
    for network in (student, teacher):
        network.register_forward_pre_hook(record)
    task = TASKS[name](student, teacher, RandomClips(CONFIG, 18))
    for _ in task.losses(0, torch.Generator().manual_seed(0)):
        pass
    levels = [sigma.view(len(sigma), -1, CHUNK) for sigma in seen]
    assert all(torch.equal(level, level[..., :1].expand_as(level)) for level in levels)
    assert any(len(row.unique()) > 2 for level in levels for row in level), "drawn for each chunk, not for each clip"


def test_a_clean_past_of_diffusion_forcing_ends_between_chunks() -> None:
    levels = forced_levels(torch.full((200, 12), 0.5), 1.0, CHUNK, torch.Generator().manual_seed(0))
    assert (levels == 0).sum(1).unique().tolist() == [3, 6, 9]


def test_the_first_chunk_of_a_resampled_past_stays_as_it_is() -> None:
    """It has no past that it could be predicted from."""
    network, generator = tiny_transformer(CONFIG), torch.Generator().manual_seed(0)
    clips = RandomClips(CONFIG, 9).draw(2, generator)
    sigma = LevelConfig().draw(clips.latents, CHUNK, generator)
    noise = torch.randn(clips.latents.shape, generator=generator)
    found = self_resampled(network, clips.latents, noise, sigma, clips.actions, TeacherForcing(CONFIG, 9))
    changed = (found != clips.latents).flatten(2).any(2)
    assert changed.tolist() == [[False] * 3 + [True] * 6] * 2


def test_clips_that_are_not_whole_chunks_are_refused() -> None:
    with pytest.raises(ValueError, match="10 frames are not whole chunks of 3"):
        LevelConfig().draw(torch.zeros(1, 10), CHUNK, torch.Generator())
    assert by_chunk(torch.tensor([[1, 2]]), CHUNK).tolist() == [[1, 1, 1, 2, 2, 2]]
