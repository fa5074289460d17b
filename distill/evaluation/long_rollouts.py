"""Rollouts of thousands of frames. Owns the real streams they are compared with and the figures computed from both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.clips import Dataset, load_episode
from distill.data.collect import CollectConfig, collect
from distill.data.statistics import clip_statistics
from distill.evaluation.drift import drift_figures
from distill.evaluation.generators import Generator, reconstruct
from distill.evaluation.pong import response_over_time
from distill.evaluation.probes import has_pong_probes
from world.actions import Actions
from world.card import WorldCard
from world.checkpoint import World

DRIFT_SEED = 5_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """num_frames: length of a rollout. num_clips: number of rollouts. num_real_clips: number of real streams."""

    num_frames: int = 3000
    num_clips: int = 8
    num_real_clips: int = 48


@dataclass(frozen=True, slots=True)
class LongStreams:
    """Real play to compare rollouts with.

    frames uint8 `n t h w 3`, actions `n t`: the streams that rollouts continue, given the first `context` frames. real:
    window statistics `m 10 4` of all streams. rebuilt: `n 10 4`, of those n streams passed through the codec.
    """

    frames: Tensor
    actions: Actions
    context: int
    real: NDArray[np.float64]
    rebuilt: NDArray[np.float64]


def long_streams(world: World, recorded: CollectConfig, folder: Path, config: DriftConfig) -> LongStreams:
    """Return streams played with random bursts; they are recorded in `folder` on first use."""
    context = world.context_pixel_frames
    paths = _real_streams(recorded, folder, config, context)
    real = np.stack([clip_statistics(load_episode(path).frames[context:]) for path in paths])
    episodes = [load_episode(path) for path in paths[: config.num_clips]]
    frames = torch.from_numpy(np.stack([episode.frames for episode in episodes]))
    actions = Actions.cat([episode.actions() for episode in episodes])
    rebuilt = reconstruct(world, frames).numpy()[:, context:]
    return LongStreams(frames, actions, context, real, np.stack([clip_statistics(clip) for clip in rebuilt]))


def drift(card: WorldCard, generate: Generator, streams: LongStreams) -> dict[str, float]:
    """Return the drift of rollouts under the streams' actions; for Pong also its action response over time."""
    num = streams.context
    generated = generate(streams.frames[:, :num], streams.actions.frames(0, num), streams.actions.frames(num)).numpy()
    statistics = np.stack([clip_statistics(clip) for clip in generated])
    figures = drift_figures(statistics, streams.real, streams.rebuilt)
    if has_pong_probes(card):
        truth, buttons = streams.frames[:, num:].numpy(), streams.actions.buttons.numpy()[:, num:]
        figures |= response_over_time(truth, generated, buttons)
    return figures


def _real_streams(recorded: CollectConfig, folder: Path, config: DriftConfig, context: int) -> list[Path]:
    streams = replace(
        recorded,
        num_train=0,
        num_heldout=config.num_real_clips,
        frames_per_stream=config.num_frames + context,
        seed=DRIFT_SEED,
        skilled_share=0.0,
        random_share=0.9,
    )
    root = folder / f"drift_{streams.num_heldout}x{streams.frames_per_stream}"
    if not (root / "dataset.json").exists():
        collect(root, streams)
    return Dataset.open(root).paths("heldout")
