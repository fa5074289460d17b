"""Write a run's products as a checkpoint folder. Owns the choice of start contexts and the fields of the card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.data.clips import Dataset, DatasetError, clip_starts, load_dones, load_episode
from distill.data.statistics import STATISTICS, frame_statistics
from distill.recipes.identity import slug
from distill.recipes.names import RECIPES
from distill.recipes.preset import Preset
from world.card import WorldCard
from world.checkpoint import World
from world.codecs.convolutional import ConvolutionalCodec
from world.model.transformer import Transformer
from world.starts import Start

NUM_STARTS, NUM_PLACES = 8, 24
STRETCH_S, NUM_STATISTICS_STREAMS = 2.0, 24


def export_world(
    target: Path,
    name: str,
    preset: Preset,
    dataset: Dataset,
    codec: ConvolutionalCodec,
    stage: str,
    student: Transformer,
    teacher: Transformer | None,
) -> World:
    """Write a checkpoint to the folder `target`: codec, the student of `stage`, the teacher if there is one, the card,
    and start contexts, which come from training episodes only."""
    sampler = preset.stage_sampler(stage)
    card = replace(make_card(name, preset, dataset), num_steps=sampler.num_steps)
    card = replace(card, provenance=card.provenance | {"stage": stage})
    world = World(card, codec, student, sampler)
    world.starts = pick_starts(dataset, world.context_pixel_frames)
    world.save(target, extra={"teacher": teacher} if teacher is not None else None)
    return world


def make_card(name: str, preset: Preset, dataset: Dataset) -> WorldCard:
    """Return the card of a world before its student is chosen. A world of another name than its data's is titled so."""
    spec = dataset.spec
    return WorldCard(
        name=name,
        title=spec.title if name in (spec.name, slug(spec.title)) else name,
        description=spec.description,
        fps=spec.fps,
        height=spec.height,
        width=spec.width,
        buttons=spec.buttons,
        axes=spec.axes,
        exclusive_buttons=spec.exclusive_buttons,
        window=preset.window_frames,
        num_steps=preset.sampler.num_steps,
        pixelated=spec.pixelated,
        data_license=spec.data_license,
        statistics=picture_statistics(dataset),
        provenance=provenance(name, dataset),
    )


def picture_statistics(dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of each statistic over stretches of two seconds of training streams: what is
    usual in this environment."""
    size = round(STRETCH_S * dataset.spec.fps)
    means = []
    for episode in dataset.episodes("train", NUM_STATISTICS_STREAMS):
        figures = frame_statistics(episode.frames)
        means += [figures[first : first + size].mean(0) for first in range(0, len(figures) - size + 1, size)]
    if not means:
        return {}
    stretches = np.stack(means)
    pairs = zip(stretches.mean(0), stretches.std(0), strict=True)
    return {name: (round(float(m), 4), round(float(d), 4)) for name, (m, d) in zip(STATISTICS, pairs, strict=True)}


def provenance(name: str, dataset: Dataset) -> dict[str, Any]:
    """Return where a world's data come from, how many frames there are, and the command that makes the world.

    Worlds made from videos have their number (`videos`); all others name an environment that can be recorded again.
    """
    collected = dataset.collected
    facts: dict[str, Any] = {"environment": collected.get("environment", dataset.spec.name)}
    command = f"lightcone train {name}"
    if "videos" in collected:
        facts["videos"] = len(collected["videos"])
        command = f"lightcone train --videos FOLDER --name {name}"
    elif name not in RECIPES:
        command = f"lightcone train --env {facts['environment']} --name {name}"
    frames = sum(len(load_dones(path)) for path in dataset.paths("train"))
    return facts | {"training_frames": frames, "command": command}


def pick_starts(dataset: Dataset, num_frames: int) -> list[Start]:
    """Return a context from each of the first training streams, within one episode: among places spread over the
    stream, the one whose picture shows most. Raises DatasetError where no stream is long enough."""
    starts: list[Start] = []
    for path in dataset.paths("train"):
        places = clip_starts(load_dones(path), num_frames, continuing=dataset.spec.continuing)
        if len(places) == 0:
            continue
        episode = load_episode(path)
        candidates = places[np.linspace(0, len(places) - 1, min(NUM_PLACES, len(places))).astype(int)]
        first = int(max(candidates, key=lambda place: _variety(episode.frames[place + num_frames - 1])))
        part = slice(first, first + num_frames)
        actions = episode.actions().frames(part.start, part.stop)
        frames = torch.from_numpy(episode.frames[part].copy())
        starts.append(Start(f"Start {len(starts) + 1}", frames, actions))
        if len(starts) == NUM_STARTS:
            return starts
    if not starts:
        raise DatasetError(
            f"no training stream of {dataset.root} runs for {num_frames + 1} frames without the end of an episode, "
            "which a start context needs: record longer streams, or train with a smaller window"
        )
    return starts


def _variety(frame: NDArray[np.uint8]) -> float:
    """Return how much the 8 × 8 parts of a picture `h w 3` differ: little where a wall fills it."""
    height, width = (size // 8 for size in frame.shape[:2])
    parts = frame[: 8 * height, : 8 * width].reshape(8, height, 8, width, 3).mean(axis=(1, 3))
    return float(parts.std(axis=(0, 1)).mean())
