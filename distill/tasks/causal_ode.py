"""Train a few-step causal student on a teacher's ODE trajectories. Owns these and draws; the loss is in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.data.latents import Clips, ClipSource
from distill.methods.causal_ode import Trajectories, causal_ode_loss, clip_trajectories
from distill.methods.knowledge_distillation import KnowledgeConfig
from distill.methods.sampling import by_chunk, generated_frames, num_chunks, prefix_lengths, randn_like
from distill.training.trainer import autocast
from world.model.patterns import TeacherForcing
from world.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalODEConfig:
    """num_clips: how many clips the teacher solves before training starts. path: levels and steps of its solutions."""

    batch_size: int = 12
    num_clips: int = 256
    path: KnowledgeConfig = field(default_factory=lambda: KnowledgeConfig(num_steps=2, substeps=8, shift=6.0))
    seed: int = 0


class CausalODETask:
    """Causal ODE regression: a few-step start from a bidirectional teacher, which solves all clips at construction."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: Transformer, teacher: Transformer, clips: ClipSource, config: CausalODEConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.student = student
        self.pattern = TeacherForcing(student.config, clips.num_frames)
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        parts = [
            _solved(teacher, clips.draw(min(config.batch_size, config.num_clips - first), generator), config, generator)
            for first in range(0, config.num_clips, config.batch_size)
        ]
        self.trajectories = Trajectories(
            torch.cat([part.states for part in parts], dim=1),
            torch.cat([part.frames for part in parts]),
            torch.cat([part.actions for part in parts]),
        )

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        solved = self.trajectories
        rows = torch.randint(len(solved.frames), (self.config.batch_size,), generator=generator)
        batch = Trajectories(solved.states[:, rows], solved.frames[rows], solved.actions[rows])
        b, f, chunk = *batch.frames.shape, self.student.config.chunk_frames
        drawn = torch.randint(self.config.path.num_steps, (b, num_chunks(f, chunk)), generator=generator)
        stage = by_chunk(drawn, chunk)
        with autocast(True):
            loss = causal_ode_loss(self.student, batch, stage, self.pattern, self.config.path)
        yield "student", loss, {}


def _solved(teacher: Transformer, batch: Clips, config: CausalODEConfig, generator: torch.Generator) -> Trajectories:
    """Solve the teacher's ODE on clips, each after a clean prefix of random length."""
    b, f = batch.latents.shape[:2]
    frames = generated_frames(prefix_lengths(b, f, teacher.config.chunk_frames, generator), f)
    with autocast(True):
        return clip_trajectories(
            teacher, batch.latents, randn_like(batch.latents, generator), frames, batch.actions, config.path
        )
