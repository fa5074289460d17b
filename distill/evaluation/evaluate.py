"""Evaluate a checkpoint against its environment. Owns which figures are computed on which held-out data.

Missing held-out episodes are recorded again from their seeds, so a fresh clone can evaluate. A world made from videos
is evaluated on its own held-out files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from distill.data.clips import Dataset, DatasetError
from distill.data.collect import collect
from distill.evaluation.generators import (
    Generator,
    in_batches,
    reconstruct,
    student_generator,
    teacher_generator,
)
from distill.evaluation.long_rollouts import DriftConfig, drift, long_streams
from distill.evaluation.probes import has_doom_probes, probe_check, probe_figures
from distill.evaluation.quality import curve, psnr, quality_figures
from distill.evaluation.starts import Starts, held_out_starts
from distill.recipes.preset import Preset
from world.actions import Actions
from world.card import WorldCard
from world.checkpoint import World

NUM_FRAMES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How much is measured. euler_steps: for students before distillation, which are many-step models."""

    num_starts: int = 256
    num_teacher_starts: int = 64
    teacher_steps: tuple[int, ...] = (4, 8, 16, 50)
    student_steps: tuple[int, ...] = (4, 2, 1)
    euler_steps: tuple[int, ...] = (16, 4, 2)
    drift: DriftConfig | None = field(default_factory=DriftConfig)
    seed: int = 0


def held_out(card: WorldCard, preset: Preset, folder: Path) -> Dataset:
    """Open the run's dataset; if there is none, record its held-out episodes.

    Raises DatasetError if the dataset of a world made from videos is missing, since it cannot be recorded again.
    """
    data = folder / "data"
    if not (data / "dataset.json").exists():
        if "videos" in card.provenance:
            raise DatasetError(
                f"{card.name} was made from videos, and {data} does not hold them: import them again with "
                f"`lightcone collect --videos FOLDER --name {card.name} --height {card.height} --width {card.width}`"
            )
        collect(data, replace(preset.collect, num_train=0))
    return Dataset.open(data)


def evaluate(world: World, preset: Preset, folder: Path, config: EvaluationConfig) -> dict[str, Any]:
    """Return the shipped student's figures; scalar figures are at the top level."""
    dataset = held_out(world.card, preset, folder)
    starts = held_out_starts(dataset, config.num_starts, world.context_pixel_frames, NUM_FRAMES, seed=config.seed)
    generator = student_generator(world)
    frames = in_batches(generator, starts, starts.actions)
    shuffled = starts.shuffled_actions()
    other = None if shuffled is None else in_batches(generator, starts, shuffled)
    report: dict[str, Any] = {"world": world.card.name, "num_starts": len(starts), "num_steps": world.sampler.num_steps}
    report |= codec_figures(world, starts)
    report |= quality_figures(starts.truth, starts.context[:, -1], frames, other, starts.episode)
    report |= probe_figures(world.card, starts, frames)
    if has_doom_probes(world.card):
        from distill.evaluation.doom import doom_figures  # here, since it loads ViZDoom

        report |= doom_figures(world, preset.collect, folder, starts, frames)
    report["still_start"] = still_start_figures(world, starts.head(64), generator)
    if config.drift is not None and "videos" not in dataset.collected:
        streams = long_streams(world, preset.collect, folder, config.drift)
        report |= drift(world.card, student_generator(world, seed=1, quiet=False), streams)
    return report


def codec_figures(world: World, starts: Starts) -> dict[str, Any]:
    """Return the PSNR of codec reconstructions, and the accuracy of the world's probes on them."""
    rebuilt = reconstruct(world, starts.truth)
    truth = starts.truth[:, : rebuilt.shape[1]]
    figures: dict[str, Any] = {"codec_psnr": round(float(psnr(rebuilt, truth).mean()), 3)}
    return figures | probe_check(world.card, starts, rebuilt)


def still_start_figures(world: World, starts: Starts, generator: Generator) -> dict[str, float]:
    """Return the figures of starts from one repeated picture: PSNR, and those of Pong's paddle."""
    still = replace_context(starts)
    frames = in_batches(generator, still, still.actions)
    figures = {f"psnr_{k}": v for k, v in curve(psnr(frames, starts.truth)).items()}
    probed = probe_figures(world.card, starts, frames)
    return figures | {key: probed[key] for key in ("paddle_error_px_mean", "action_response_ratio") if key in probed}


def replace_context(starts: Starts) -> Starts:
    """Return the same starts with their last picture repeated as the context, without actions."""
    last = starts.context[:, -1:].expand_as(starts.context).clone()
    idle = Actions(torch.zeros_like(starts.context_actions.buttons), torch.zeros_like(starts.context_actions.axes))
    return replace(starts, context=last, context_actions=idle)


def compare_stages(
    world: World,
    stages: dict[str, World],
    teacher: World | None,
    preset: Preset,
    folder: Path,
    config: EvaluationConfig,
) -> dict[str, dict[str, Any]]:
    """Return the figures of the teacher, if there is one, and of every stage's student, on the same few starts.

    Each is measured at several numbers of steps. Students that have not been through a few-step stage are also measured
    with Euler steps of their ODE: few-step sampling of a many-step model would exaggerate the gain of distillation.
    """
    dataset = held_out(world.card, preset, folder)
    starts = held_out_starts(
        dataset, config.num_teacher_starts, world.context_pixel_frames, NUM_FRAMES, seed=config.seed
    )
    generators: dict[str, Generator] = {}
    if teacher is not None:
        for steps in config.teacher_steps:
            label = f"teacher, {steps} steps"
            generators[label] = teacher_generator(teacher, num_steps=steps, shift=world.sampler.shift)
    for name, stage in stages.items():
        for steps in () if stage.sampler.renoise else config.euler_steps:
            generators[f"{name}, {steps} Euler steps"] = student_generator(stage, num_steps=steps, euler=True)
        for steps in config.student_steps:
            generators[f"{name}, {steps} steps"] = student_generator(stage, num_steps=steps, euler=False)
    rows = {}
    for label, generator in tqdm(generators.items(), desc="stages"):
        frames = in_batches(generator, starts, starts.actions)
        figures = quality_figures(starts.truth, starts.context[:, -1], frames, None, starts.episode)
        probed = probe_figures(world.card, starts, frames)
        rows[label] = {"psnr": figures["psnr"], "sharpness_ratio": figures["sharpness_ratio"]} | probed
    return rows
