"""Evaluate a checkpoint against its environment. Owns which figures are computed on which held-out data.

Held-out episodes are re-recorded from their seeds where they are missing, so a fresh clone can evaluate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from distill.clips import Dataset, load_episode
from distill.collect import collect
from distill.evaluation.clips import (
    Generator,
    Starts,
    held_out_starts,
    in_batches,
    student_generator,
    teacher_generator,
)
from distill.evaluation.drift import clip_statistics, drift_figures
from distill.evaluation.pong import action_response, check_detector, detect, pong_figures
from distill.evaluation.quality import quality_figures
from distill.presets import Preset
from world.actions import Actions
from world.world import World

DRIFT_FRAMES, DRIFT_CLIPS, DRIFT_REAL_CLIPS, DRIFT_SEED = 3000, 8, 48, 5_000_000
PONG_FRAMES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How much is measured."""

    num_starts: int = 256
    num_teacher_starts: int = 64
    teacher_steps: tuple[int, ...] = (4, 8, 16, 50)
    student_steps: tuple[int, ...] = (4, 2, 1)
    drift: bool = True
    seed: int = 0


def held_out(preset: Preset, folder: Path) -> Dataset:
    """The run's dataset; without one, just its held-out episodes are recorded."""
    if not (folder / "data" / "dataset.json").exists():
        collect(folder / "data", replace(preset.collect, num_train=0))
    return Dataset.open(folder / "data")


def evaluate(world: World, preset: Preset, folder: Path, config: EvaluationConfig) -> dict[str, Any]:
    """The shipped student's figures, flat where the figure is one number."""
    dataset = held_out(preset, folder)
    starts = held_out_starts(dataset, config.num_starts, world.context_pixel_frames, PONG_FRAMES, seed=config.seed)
    generator = student_generator(world)
    frames = in_batches(generator, starts, starts.actions)
    other = in_batches(generator, starts, starts.shuffled_actions())
    report: dict[str, Any] = {"world": world.card.name, "num_starts": len(starts), "num_steps": world.sampler.num_steps}
    report |= codec_figures(world, starts)
    report |= quality_figures(starts.truth, starts.context[:, -1], frames, other)
    report |= own_figures(world.card.name, starts, frames)
    report["still_start"] = still_start_figures(world, starts.head(64), generator)
    if config.drift:
        report |= drift(world, preset, folder)
    return report


def codec_figures(world: World, starts: Starts) -> dict[str, Any]:
    """PSNR of codec reconstructions, and the detector's check on them where the world has one."""
    from distill.evaluation.quality import psnr

    rebuilt = reconstruct(world, starts.truth)
    figures: dict[str, Any] = {"codec_psnr": round(float(psnr(rebuilt, starts.truth).mean()), 3)}
    if world.card.name == "pong":
        figures |= check_detector(starts.truth.numpy(), rebuilt.numpy())
    return figures


@torch.inference_mode()
def reconstruct(world: World, frames: torch.Tensor) -> torch.Tensor:
    parts = []
    for part in frames.split(32):
        latents, _ = world.encode(part)
        parts.append(world.decode(latents, world.codec.initial_state(len(part)))[0])
    return torch.cat(parts)


def own_figures(name: str, starts: Starts, frames: torch.Tensor) -> dict[str, float]:
    """Figures only this world has, from reading its pictures; none for worlds without a reader."""
    readers: dict[str, Callable[[], dict[str, float]]] = {
        "pong": lambda: pong_figures(starts.truth.numpy(), frames.numpy(), starts.actions.buttons.numpy())
    }
    return readers[name]() if name in readers else {}


def still_start_figures(world: World, starts: Starts, generator: Generator) -> dict[str, float]:
    """From one repeated picture: how the first frames compare with truth, and Pong's paddle."""
    still = replace_context(starts)
    frames = in_batches(generator, still, still.actions)
    from distill.evaluation.quality import curve, psnr

    figures = {f"psnr_{k}": v for k, v in curve(psnr(frames, starts.truth)).items()}
    own = own_figures(world.card.name, starts, frames)
    return figures | {key: own[key] for key in ("paddle_error_px_mean", "action_response_ratio") if key in own}


def replace_context(starts: Starts) -> Starts:
    """The same starts from their last picture alone, repeated, with no action."""
    last = starts.context[:, -1:].expand_as(starts.context).clone()
    idle = Actions(torch.zeros_like(starts.context_actions.buttons), torch.zeros_like(starts.context_actions.axes))
    return replace(starts, context=last, context_actions=idle)


def drift(world: World, preset: Preset, folder: Path) -> dict[str, float]:
    """Eight rollouts of 3,000 frames under random bursts, against real streams under the same policy."""
    config = replace(
        preset.collect,
        num_train=0,
        num_heldout=DRIFT_REAL_CLIPS,
        frames_per_stream=DRIFT_FRAMES + world.context_pixel_frames,
        seed=DRIFT_SEED,
        skilled_share=0.0,
        random_share=0.9,
    )
    data = folder / "drift_data"
    if not (data / "dataset.json").exists():
        collect(data, config)
    paths = Dataset.open(data).paths("heldout")
    context = world.context_pixel_frames
    real = np.stack([clip_statistics(load_episode(path).frames[context:]) for path in paths])
    episodes = [load_episode(path) for path in paths[:DRIFT_CLIPS]]
    actions = Actions.cat([episode.actions() for episode in episodes])
    contexts = torch.from_numpy(np.stack([episode.frames[:context] for episode in episodes]))
    generate = student_generator(world, seed=1, quiet=False)
    frames = generate(contexts, actions.frames(0, context), actions.frames(context))
    generated = np.stack([clip_statistics(clip) for clip in frames.numpy()])
    figures = drift_figures(generated, real)
    if world.card.name == "pong":
        figures |= _response_over_time(world, frames.numpy(), episodes, actions.buttons.numpy()[:, context:])
    return figures


def _response_over_time(
    world: World, frames: NDArray[np.uint8], episodes: list[Any], buttons: NDArray[np.bool_]
) -> dict[str, float]:
    """Action response in the first and last of ten windows. Rollouts leave the emulator's course, so the twin of a
    flip is the emulator's paddle under the same actions, which does not depend on the ball."""
    context = world.context_pixel_frames
    size = DRIFT_FRAMES // 10
    truth = np.stack([episode.frames[context:] for episode in episodes])
    figures = {}
    for name, part in (("first", slice(0, size)), ("last", slice(DRIFT_FRAMES - size, DRIFT_FRAMES))):
        true_y, seen_y = detect(truth[:, part]).paddle_y, detect(frames[:, part]).paddle_y
        figures[f"action_response_{name}_window"] = action_response(true_y, seen_y, buttons[:, part])
    figures["action_response_last_to_first"] = figures["action_response_last_window"] / max(
        figures["action_response_first_window"], 1e-6
    )
    return figures


def compare_stages(
    world: World, stages: dict[str, World], teacher: World, preset: Preset, folder: Path, config: EvaluationConfig
) -> dict[str, dict[str, Any]]:
    """The teacher at several step counts and every stage's student at `student_steps`, on the same few starts."""
    dataset = held_out(preset, folder)
    starts = held_out_starts(
        dataset, config.num_teacher_starts, world.context_pixel_frames, PONG_FRAMES, seed=config.seed
    )
    generators: dict[str, Generator] = {
        f"teacher, {steps} steps": teacher_generator(teacher, num_steps=steps, shift=world.sampler.shift)
        for steps in config.teacher_steps
    }
    for name, stage in stages.items():
        for steps in config.student_steps:
            sampler = replace(stage.sampler, num_steps=steps)
            copy = World(stage.card, stage.codec, stage.transformer, sampler, dtype=stage.dtype, device=stage.device)
            generators[f"{name}, {steps} steps"] = student_generator(copy)
    rows = {}
    for label, generator in tqdm(generators.items(), desc="stages"):
        frames = in_batches(generator, starts, starts.actions)
        figures = quality_figures(starts.truth, starts.context[:, -1], frames, frames)
        own = own_figures(world.card.name, starts, frames)
        rows[label] = {"psnr": figures["psnr"], "sharpness_ratio": figures["sharpness_ratio"]} | own
    return rows
