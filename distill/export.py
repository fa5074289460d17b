"""A run's products as a checkpoint folder. Owns the choice of start contexts and the card's fields; trains nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from distill.clips import Dataset
from distill.presets import Preset
from world.actions import Actions
from world.card import Axis, Button, WorldCard
from world.codec import Codec
from world.transformer import Transformer
from world.world import Start, World

NUM_STARTS = 8


def export_world(
    target: Path,
    name: str,
    preset: Preset,
    dataset: Dataset,
    codec: Codec,
    student: Transformer,
    teacher: Transformer,
) -> World:
    """Write `target` with codec, student, teacher, card and start contexts (from training episodes only)."""
    world = World(make_card(name, preset, dataset), codec, student, preset.sampler)
    world.starts = pick_starts(dataset, world.context_pixel_frames)
    world.save(target, extra={"teacher": teacher})
    return world


def make_card(name: str, preset: Preset, dataset: Dataset) -> WorldCard:
    spec = dataset.spec
    return WorldCard(
        name=name,
        title=spec.title,
        description=spec.description,
        fps=spec.fps,
        height=spec.height,
        width=spec.width,
        buttons=tuple(Button(name=b.name, label=b.label, keys=b.keys) for b in spec.buttons),
        axes=tuple(Axis(name=a.name, label=a.label, low=a.low, high=a.high, source=a.source) for a in spec.axes),
        exclusive_buttons=spec.exclusive_buttons,
        window=preset.window_frames,
        num_steps=preset.sampler.num_steps,
        data_license=spec.data_license,
        provenance={
            "environment": dataset.collected["environment"],
            "training_frames": dataset.collected["num_train"] * dataset.collected["frames_per_stream"],
            "command": f"lightcone train {name}",
        },
    )


def pick_starts(dataset: Dataset, num_frames: int) -> list[Start]:
    """One context from each of the first training episodes, a third into it."""
    starts = []
    for number, episode in enumerate(dataset.episodes("train", NUM_STARTS)):
        first = len(episode) // 3
        part = slice(first, first + num_frames)
        actions = Actions(torch.from_numpy(episode.buttons[part])[None], torch.from_numpy(episode.axes[part])[None])
        starts.append(Start(f"Start {number + 1}", torch.from_numpy(episode.frames[part].copy()), actions))
    return starts
