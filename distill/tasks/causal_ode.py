"""Train a few-step causal student on a teacher's ODE trajectories. Owns these and draws; the loss is in `methods`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from distill.data.latents import Clips, ClipSource
from distill.methods.causal_ode import Trajectories, causal_ode_loss, clip_trajectories, past_trajectories
from distill.methods.knowledge_distillation import KnowledgeConfig
from distill.methods.sampling import by_chunk, generated_frames, num_chunks, prefix_lengths, randn_like
from distill.training.precision import autocast
from world.model.patterns import Banded, TeacherForcing
from world.model.transformer import Transformer

Variant = Literal["noisy_past", "clean_past", "causal_teacher"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalODEConfig:
    """variant: the past that the student is given and its teacher (see `distill.methods.causal_ode`): CausVid's noisy
    past or a clean one, both under a bidirectional teacher, or Causal-Forcing's autoregressive teacher.
    num_clips: how many clips the teacher solves before training starts. path: levels and steps of its solutions.
    first_loss_frame: earlier frames of a clip are data; for `causal_teacher`, since the others draw a prefix."""

    variant: Variant = "noisy_past"
    batch_size: int = 12
    num_clips: int = 256
    path: KnowledgeConfig = field(default_factory=lambda: KnowledgeConfig(num_steps=2, substeps=8, shift=6.0))
    first_loss_frame: int = 3
    seed: int = 0


class CausalODETask:
    """Causal ODE regression: a few-step start from a many-step teacher, which solves all clips at construction.

    teacher: bidirectional; for the variant `causal_teacher` a causal network, such as the teacher-forced student.
    """

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: Transformer, teacher: Transformer, clips: ClipSource, config: CausalODEConfig) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}
        self.student = student
        noisy = config.variant == "noisy_past"
        frames = tuple(range(clips.num_frames))
        self.pattern = Banded(student.config, frames) if noisy else TeacherForcing(student.config, clips.num_frames)
        self.num_stages = config.path.num_steps + noisy  # level 0 occurs in a noisy past only
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
            torch.cat([part.past for part in parts]),
        )

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        solved = self.trajectories
        rows = torch.randint(len(solved.frames), (self.config.batch_size,), generator=generator)
        batch = Trajectories(solved.states[:, rows], solved.frames[rows], solved.actions[rows], solved.past[rows])
        b, f, chunk = *batch.frames.shape, self.student.config.chunk_frames
        stage = by_chunk(torch.randint(self.num_stages, (b, num_chunks(f, chunk)), generator=generator), chunk)
        with autocast(self.student):
            loss = causal_ode_loss(self.student, batch, stage, self.pattern, self.config.path)
        yield "student", loss, {}


def _solved(teacher: Transformer, batch: Clips, config: CausalODEConfig, generator: torch.Generator) -> Trajectories:
    """Solve the teacher's ODE on clips: each after a clean prefix of random length, or each chunk after the data."""
    x0, actions = batch.latents, batch.actions
    b, f = x0.shape[:2]
    chunk = teacher.config.chunk_frames
    if config.variant == "causal_teacher":
        first = chunk * -(-config.first_loss_frame // chunk)
        frames, pattern = (torch.arange(f) >= first).expand(b, f), TeacherForcing(teacher.config, f)
        with autocast(teacher):
            return past_trajectories(teacher, x0, randn_like(x0, generator), frames, actions, pattern, config.path)
    frames = generated_frames(prefix_lengths(b, f, chunk, generator), f)
    with autocast(teacher):
        return clip_trajectories(teacher, x0, randn_like(x0, generator), frames, actions, config.path)
