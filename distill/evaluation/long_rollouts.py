"""Rollouts of thousands of frames. Owns which are made and which real streams they are held against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from distill.clips import Dataset, load_episode
from distill.collect import CollectConfig, collect
from distill.evaluation.drift import clip_statistics, drift_figures
from distill.evaluation.generators import reconstruct, student_generator
from distill.evaluation.pong import response_over_time
from distill.evaluation.readers import reads_pong
from world.actions import Actions
from world.world import World

DRIFT_SEED = 5_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """How many rollouts, how long, and how many real streams."""

    num_frames: int = 3000
    num_clips: int = 8
    num_real_clips: int = 48


def drift(world: World, recorded: CollectConfig, folder: Path, config: DriftConfig) -> dict[str, float]:
    """Rollouts under random bursts, against real streams under the same policy; real streams are recorded in `folder`
    the first time."""
    context = world.context_pixel_frames
    paths = _real_streams(recorded, folder, config, context)
    real = np.stack([clip_statistics(load_episode(path).frames[context:]) for path in paths])
    episodes = [load_episode(path) for path in paths[: config.num_clips]]
    actions = Actions.cat([episode.actions() for episode in episodes])
    frames = torch.from_numpy(np.stack([episode.frames for episode in episodes]))
    generate = student_generator(world, seed=1, quiet=False)
    generated = generate(frames[:, :context], actions.frames(0, context), actions.frames(context)).numpy()
    rebuilt = reconstruct(world, frames).numpy()[:, context:]
    figures = drift_figures(
        np.stack([clip_statistics(clip) for clip in generated]),
        real,
        np.stack([clip_statistics(clip) for clip in rebuilt]),
    )
    if reads_pong(world.card):
        figures |= response_over_time(frames[:, context:].numpy(), generated, actions.buttons.numpy()[:, context:])
    return figures


def _real_streams(recorded: CollectConfig, folder: Path, config: DriftConfig, context: int) -> list[Path]:
    wanted = replace(
        recorded,
        num_train=0,
        num_heldout=config.num_real_clips,
        frames_per_stream=config.num_frames + context,
        seed=DRIFT_SEED,
        skilled_share=0.0,
        random_share=0.9,
    )
    root = folder / f"drift_{wanted.num_heldout}x{wanted.frames_per_stream}"
    if not (root / "dataset.json").exists():
        collect(root, wanted)
    return Dataset.open(root).paths("heldout")
