"""Train causal students from the shipped Pong's networks, roll them out and measure their pictures. Owns the order.

Data, training states and measured quality are stored in a folder, so that an interrupted run resumes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.distillation.comparison import STUDENT_STEPS, Evaluated, Row, in_turns
from benchmarks.distillation.pong_students import SHIPPED, STUDENTS, Available, PongStudent
from benchmarks.distillation.settings import student_of
from distill.evaluation.drift import drift_figures
from distill.evaluation.generators import (
    Generator,
    in_batches,
    reconstruct,
    student_generator,
    teacher_generator,
)
from distill.evaluation.long_rollouts import DriftConfig, drift, long_streams
from distill.evaluation.probes import probe_figures
from distill.evaluation.starts import held_out_starts
from distill.recipes.catalogue import PRESETS
from distill.recipes.run import Run
from distill.recipes.warm_start import warm_start
from distill.training.state import load_product
from distill.training.trainer import Trainer
from world.catalogue import find
from world.checkpoint import World
from world.model.transformer import Transformer

ROLES = {"teacher": "teacher", SHIPPED: "student"}
"""Name here → role in the checkpoint."""

FIGURES = ("paddle_error_px_mean", "ball_error_px_median", "ball_present_ratio", "action_response_ratio")

Training = Callable[[], tuple[float | None, int]]
"""Trains a network and returns the seconds (None if unknown) and steps it took."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PongSetting:
    """How much is recorded and measured. num_steps: training steps for every student, for a quick look."""

    num_train: int = 60
    num_heldout: int = 16
    frames_per_stream: int = 1500
    num_starts: int = 64
    num_frames: int = 64
    drift: DriftConfig = field(default_factory=lambda: DriftConfig(num_frames=1000))
    teacher_steps: tuple[int, ...] = (4, 16, 50)
    student_steps: tuple[int, ...] = STUDENT_STEPS
    num_steps: int | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """generator: number of steps → generator, usable after `train` was called."""

    name: str
    counts: tuple[int, ...]
    generator: Callable[[int], Generator]
    train: Training


class PongComparison:
    """The shipped world, held-out starts and long streams, shared by all rows and stored in `folder`."""

    def __init__(self, folder: Path, setting: PongSetting) -> None:
        self.folder, self.setting = folder, setting
        checkpoint = find("pong")
        self.world = World.load(checkpoint)
        run = _run(folder, checkpoint, setting)
        context = self.world.context_pixel_frames
        self.starts = held_out_starts(run.dataset(), setting.num_starts, context, setting.num_frames)
        self.streams = long_streams(self.world, run.preset.collect, folder, setting.drift)
        networks = {role: World.load(checkpoint, role=role, dtype=torch.float32).transformer for role in ROLES.values()}
        self.available = Available(run, {name: networks[role] for name, role in ROLES.items()})

    def floor(self) -> dict[str, float]:
        """Return the figures of true play passed through the codec and back."""
        started = time.perf_counter()
        rebuilt = reconstruct(self.world, self.starts.truth)
        speed = rebuilt.shape[0] * rebuilt.shape[1] / (time.perf_counter() - started)
        codec = drift_figures(self.streams.rebuilt, self.streams.real, self.streams.rebuilt)
        quality = _named(codec["drift_codec_max"], probe_figures(self.world.card, self.starts, rebuilt))
        return {**quality, "frames_per_s": speed}

    def rows(self) -> Iterator[Row]:
        """Yield the bidirectional teacher at its step counts, then every student at 1, 2 and 4.

        Each quality is stored once measured; the times, for one session's frames, are measured at the end.
        """
        start = self.starts.head(1)
        entries = []
        for contender in self._contenders():
            train_s, train_steps = contender.train()
            for num_steps in contender.counts:
                quality = self._quality(contender, train_steps, num_steps)
                generate = contender.generator(num_steps)
                entries.append(
                    Evaluated(
                        method=contender.name,
                        num_steps=num_steps,
                        quality=quality,
                        make=partial(generate, start.context, start.context_actions, start.actions),
                        train_s=train_s,
                        train_steps=train_steps,
                    )
                )
        for row in in_turns(entries):
            yield replace(row, quality={**row.quality, "frames_per_s": self.setting.num_frames / row.sample_s})

    def _contenders(self) -> Iterator[Contender]:
        setting, preset, shift = self.setting, self.available.run.preset, self.world.sampler.shift
        teacher = World.load(find("pong"), role="teacher")
        yield Contender(
            "teacher",
            setting.teacher_steps,
            lambda num_steps: teacher_generator(teacher, num_steps=num_steps, shift=shift),
            lambda: (None, preset.teacher_trainer.num_steps),
        )
        yield from self.students()

    def students(self) -> Iterator[Contender]:
        """Yield the shipped student, then those trained here."""
        steps = self.available.run.preset.teacher_forced_trainer.num_steps
        yield self._student(SHIPPED, lambda: (None, steps), renoise=False)
        for student in STUDENTS:
            yield self._student(student.name, partial(self._trained, student), renoise=student.renoise)

    def _student(self, name: str, train: Training, *, renoise: bool) -> Contender:
        def generator(num_steps: int) -> Generator:
            network = student_of(self.available.networks[name])  # a copy: the world may change its dtype
            world = World(
                self.world.card,
                self.world.codec,
                network,
                replace(self.world.sampler, renoise=renoise),
                dtype=self.world.dtype,
                device=self.world.device,
            )
            return student_generator(world, num_steps=num_steps)

        return Contender(name, self.setting.student_steps, generator, train)

    def _quality(self, contender: Contender, train_steps: int, num_steps: int) -> dict[str, float]:
        path = self.folder / "quality" / f"{contender.name}-{train_steps}-{num_steps}.json"
        if not path.exists():
            generate = contender.generator(num_steps)
            frames = in_batches(generate, self.starts, self.starts.actions)
            probed = probe_figures(self.world.card, self.starts, frames)
            quality = _named(drift(self.world.card, generate, self.streams)["drift_max"], probed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(quality) + "\n")
        stored: dict[str, float] = json.loads(path.read_text())
        return stored

    def _trained(self, student: PongStudent) -> tuple[float | None, int]:
        """Train the student, or resume its training, and add it to the networks; return (seconds, steps)."""
        config = student.trainer
        if self.setting.num_steps is not None:
            config = replace(config, num_steps=self.setting.num_steps, log_every=1)
        folder = self.folder / "students" / f"{student.name}-{config.num_steps}"
        Trainer(student.make(self.available), config, folder).run()
        network = Transformer(self.world.transformer.config)
        network.load_state_dict(load_product(folder)[0])
        self.available.networks[student.name] = network.eval().requires_grad_(False)
        return _training_s(folder), config.num_steps


def _named(drift_max: float, probed: dict[str, float]) -> dict[str, float]:
    """Return the figures in the order of the table."""
    return {"drift_max": drift_max, **{key: probed[key] for key in FIGURES}}


def _run(folder: Path, checkpoint: Path, setting: PongSetting) -> Run:
    """Return a run that starts from the checkpoint, with its data recorded and encoded."""
    preset = PRESETS["pong"]()
    collect = replace(
        preset.collect,
        num_train=setting.num_train,
        num_heldout=setting.num_heldout,
        frames_per_stream=setting.frames_per_stream,
    )
    run = Run("pong", replace(preset, collect=collect), folder, folder / "checkpoint")
    if not (folder / "warm_up" / "state.pt").exists():
        warm_start(run, checkpoint)
    run.stage("latents")
    return run


def _training_s(folder: Path) -> float | None:
    """Estimate the training time in seconds as number of steps × median time per step; None if too short to tell.

    The metrics' clock restarts when training is resumed, so pauses do not count.
    """
    step, elapsed = 0, 0.0
    durations: list[float] = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        logged = json.loads(line)
        if logged["elapsed_s"] > elapsed:
            durations.append((logged["elapsed_s"] - elapsed) / (logged["step"] - step))
        step, elapsed = logged["step"], logged["elapsed_s"]
    return step * statistics.median(durations) if durations else None
