"""Causal students on the shipped Pong: trained from its networks, rolled out, read off their pictures. Owns the order.

Data, training and quality are kept in a folder, so that a run that was stopped goes on where it was.
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
from benchmarks.distillation.methods import student_of
from benchmarks.distillation.pong_students import SHIPPED, STUDENTS, Given, PongStudent
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
from distill.training.trainer import Trainer, load_product
from world.catalogue import find
from world.checkpoint import World
from world.model.transformer import Transformer

ROLES = {"teacher": "teacher", SHIPPED: "student"}
"""Name here → role in the checkpoint."""

FIGURES = ("paddle_error_px_mean", "ball_error_px_median", "ball_present_ratio", "action_response_ratio")

Training = Callable[[], tuple[float | None, int]]
"""Makes a network, and says in how many seconds (None: not known) and steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PongSetting:
    """How much is recorded and measured. num_steps: of every training instead of its own, for a quick look."""

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
    """generator: of a number of steps; only once `train` has been called."""

    name: str
    counts: tuple[int, ...]
    generator: Callable[[int], Generator]
    train: Training


class PongComparison:
    """What all rows share: the shipped world, held-out starts and long streams, in `folder`."""

    def __init__(self, folder: Path, setting: PongSetting) -> None:
        self.folder, self.setting = folder, setting
        checkpoint = find("pong")
        self.world = World.load(checkpoint)
        run = _run(folder, checkpoint, setting)
        context = self.world.context_pixel_frames
        self.starts = held_out_starts(run.dataset(), setting.num_starts, context, setting.num_frames)
        self.streams = long_streams(self.world, run.preset.collect, folder, setting.drift)
        whole = {role: World.load(checkpoint, role=role, dtype=torch.float32).transformer for role in ROLES.values()}
        self.given = Given(run, {name: whole[role] for name, role in ROLES.items()})

    def floor(self) -> dict[str, float]:
        """What true play scores that went through the codec and back."""
        started = time.perf_counter()
        rebuilt = reconstruct(self.world, self.starts.truth)
        speed = rebuilt.shape[0] * rebuilt.shape[1] / (time.perf_counter() - started)
        codec = drift_figures(self.streams.rebuilt, self.streams.real, self.streams.rebuilt)
        quality = _named(codec["drift_codec_max"], probe_figures(self.world.card, self.starts, rebuilt))
        return {**quality, "frames_per_s": speed}

    def rows(self) -> Iterator[Row]:
        """The bidirectional teacher at its step counts, then every student at 1, 2 and 4. What they are worth is kept
        as it is measured; times, of one session's frames, are taken at the end."""
        one = self.starts.head(1)
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
                        make=partial(generate, one.context, one.context_actions, one.actions),
                        train_s=train_s,
                        train_steps=train_steps,
                    )
                )
        for row in in_turns(entries):
            yield replace(row, quality={**row.quality, "frames_per_s": self.setting.num_frames / row.sample_s})

    def _contenders(self) -> Iterator[Contender]:
        setting, preset, shift = self.setting, self.given.run.preset, self.world.sampler.shift
        teacher = World.load(find("pong"), role="teacher")
        yield Contender(
            "teacher",
            setting.teacher_steps,
            lambda num_steps: teacher_generator(teacher, num_steps=num_steps, shift=shift),
            lambda: (None, preset.teacher_trainer.num_steps),
        )
        yield from self.students()

    def students(self) -> Iterator[Contender]:
        """The shipped one, then those that are trained here."""
        steps = self.given.run.preset.teacher_forced_trainer.num_steps
        yield self._student(SHIPPED, lambda: (None, steps), renoise=False)
        for student in STUDENTS:
            yield self._student(student.name, partial(self._trained, student), renoise=student.renoise)

    def _student(self, name: str, train: Training, *, renoise: bool) -> Contender:
        def generator(num_steps: int) -> Generator:
            network = student_of(self.given.networks[name])  # a copy: the world may keep it in another dtype
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
            own = probe_figures(self.world.card, self.starts, in_batches(generate, self.starts, self.starts.actions))
            quality = _named(drift(self.world.card, generate, self.streams)["drift_max"], own)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(quality) + "\n")
        kept: dict[str, float] = json.loads(path.read_text())
        return kept

    def _trained(self, student: PongStudent) -> tuple[float | None, int]:
        """Train the student, or go on, and add it to the networks: (seconds, steps)."""
        config = student.trainer
        if self.setting.num_steps is not None:
            config = replace(config, num_steps=self.setting.num_steps, log_every=1)
        folder = self.folder / "students" / f"{student.name}-{config.num_steps}"
        Trainer(student.make(self.given), config, folder).run()
        network = Transformer(self.world.transformer.config)
        network.load_state_dict(load_product(folder)[0])
        self.given.networks[student.name] = network.eval().requires_grad_(False)
        return _training_s(folder), config.num_steps


def _named(drift_max: float, own: dict[str, float]) -> dict[str, float]:
    """In the table's order."""
    return {"drift_max": drift_max, **{key: own[key] for key in FIGURES}}


def _run(folder: Path, checkpoint: Path, setting: PongSetting) -> Run:
    """A run that goes on from the checkpoint, its data recorded and encoded."""
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
    """Seconds of all steps at the median of what one took, by the stage's metrics: the clock in them starts anew where
    training was gone on with, and a pause is not training. None where it was too short to tell."""
    step, elapsed = 0, 0.0
    took: list[float] = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        logged = json.loads(line)
        if logged["elapsed_s"] > elapsed:
            took.append((logged["elapsed_s"] - elapsed) / (logged["step"] - step))
        step, elapsed = logged["step"], logged["elapsed_s"]
    return step * statistics.median(took) if took else None
