"""Held-out starts for evaluation. Owns how they are drawn; knows no model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.clips import Dataset, DatasetError, Episode, clip_starts, load_dones, load_episode, unbroken
from world.actions import Actions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Starts:
    """Held-out clips: the context to continue, the truth that followed, and each clip's recorded stream (`b`)."""

    context: Tensor
    context_actions: Actions
    truth: Tensor
    actions: Actions
    oracle: NDArray[np.float32]
    episode: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.context)

    def head(self, num: int) -> Starts:
        """Return the first `num` starts."""
        rows = slice(0, num)
        return Starts(
            self.context[rows],
            self.context_actions[rows],
            self.truth[rows],
            self.actions[rows],
            self.oracle[rows],
            self.episode[rows],
        )

    def shuffled_actions(self) -> Actions | None:
        """Return for every start the actions of a clip from another stream; None without another stream or actions."""
        if len(np.unique(self.episode)) < 2 or not self.actions.vector().shape[2]:
            return None
        num = len(self)
        shifts = num // 2 + np.arange(num)
        partners = (np.arange(num)[:, None] + shifts) % num  # for each row all rows, far ones first
        elsewhere = self.episode[partners] != self.episode[:, None]
        return self.actions[torch.from_numpy(partners[np.arange(num), elsewhere.argmax(axis=1)])]


def held_out_starts(dataset: Dataset, num: int, context_frames: int, num_frames: int, *, seed: int = 0) -> Starts:
    """Draw `num` starts, spread evenly over the held-out streams, at random places within an episode.

    If half of the streams are too short for `num_frames` frames after the context, fewer frames follow; streams that
    are still too short are left out. Raises DatasetError if half of the streams are no longer than the context.
    """
    rng = np.random.default_rng(seed)
    continuing = dataset.spec.continuing
    paths = dataset.paths("heldout")
    dones = [load_dones(path) for path in paths]
    length = context_frames + _room(dataset.root, dones, continuing, context_frames, num_frames)
    places = {number: clip_starts(row, length, continuing=continuing) for number, row in enumerate(dones)}
    usable = [number for number, starts in places.items() if len(starts)]
    rows = [usable[row % len(usable)] for row in range(num)]
    firsts = [int(rng.choice(places[number])) for number in rows]
    clips: list[Episode] = [None] * num  # type: ignore[list-item]  # every place is filled below
    for number in sorted(set(rows)):
        episode = load_episode(paths[number])  # one at a time: all of them are gigabytes
        for row in np.flatnonzero(np.array(rows) == number):
            clips[row] = _cut(episode, slice(firsts[row], firsts[row] + length))
    actions = Actions.cat([clip.actions() for clip in clips])
    frames = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    return Starts(
        frames[:, :context_frames],
        actions.frames(0, context_frames),
        frames[:, context_frames:],
        actions.frames(context_frames),
        np.stack([clip.oracle[context_frames:] for clip in clips]),
        np.array(rows, np.int64),
    )


def _room(root: Path, dones: list[NDArray[np.bool_]], continuing: bool, context_frames: int, num_frames: int) -> int:
    """Return how many frames follow a context: `num_frames`, or as many as at least half of the streams allow."""
    longest = [max(stop - max(start, 1) for start, stop in unbroken(row, continuing=continuing)) for row in dones]
    found = int(np.median(longest)) - context_frames
    if found < 1:
        raise DatasetError(
            f"held-out streams of {root} have {int(np.median(longest))} frames between the ends of episodes; at least "
            f"{context_frames + 1}, better {context_frames + num_frames}, are needed: record longer streams"
        )
    if found < num_frames:
        logger.warning("held-out streams of %s are short: %d frames are evaluated, not %d", root, found, num_frames)
    return min(found, num_frames)


def _cut(episode: Episode, part: slice) -> Episode:
    return Episode(**{name: getattr(episode, name)[part].copy() for name in Episode.__slots__})
