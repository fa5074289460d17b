"""Held-out starts to continue from. Owns the draw of starts; knows no model."""

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
    """Held-out clips: context to continue from, what truly followed, and which recorded stream each is from (`b`)."""

    context: Tensor
    context_actions: Actions
    truth: Tensor
    actions: Actions
    oracle: NDArray[np.float32]
    episode: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.context)

    def head(self, num: int) -> Starts:
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
        """Every start with the actions of a clip from another stream; None where there is no other, or no action."""
        if len(np.unique(self.episode)) < 2 or not self.actions.vector().shape[2]:
            return None
        num = len(self)
        shifts = num // 2 + np.arange(num)
        partners = (np.arange(num)[:, None] + shifts) % num  # for each row all rows, far ones first
        elsewhere = self.episode[partners] != self.episode[:, None]
        return self.actions[torch.from_numpy(partners[np.arange(num), elsewhere.argmax(axis=1)])]


def held_out_starts(dataset: Dataset, num: int, context_frames: int, num_frames: int, *, seed: int = 0) -> Starts:
    """`num` starts spread evenly over the held-out streams, at random places; the end of an episode cuts none of them.

    Fewer than `num_frames` frames follow where half of the streams have no place for so many; streams without a place
    are left out. Raises DatasetError where hardly any stream is longer than the context.
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
    """How many frames can follow a context: `num_frames`, or what at least half of the streams have a place for."""
    longest = [max(stop - max(start, 1) for start, stop in unbroken(row, continuing=continuing)) for row in dones]
    found = int(np.median(longest)) - context_frames
    if found < 1:
        raise DatasetError(
            f"held-out streams of {root} run for {int(np.median(longest))} frames between the ends of episodes; "
            f"{context_frames + 1} are needed, {context_frames + num_frames} are wanted: record longer ones"
        )
    if found < num_frames:
        logger.warning("held-out streams of %s are short: %d frames are judged, not %d", root, found, num_frames)
    return min(found, num_frames)


def _cut(episode: Episode, part: slice) -> Episode:
    return Episode(**{name: getattr(episode, name)[part].copy() for name in Episode.__slots__})
