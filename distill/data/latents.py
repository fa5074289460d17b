"""Clips of latents in memory. Owns encoding a dataset once and drawing training clips; knows no loss.

`encode_dataset` writes one file: per training stream float16 latents `n c h w` (their tracked channels are the truth,
not the codec's estimate) and action vectors `n a` (all pixel frames' actions of a latent side by side); where episodes
end within a stream, also the stretches `k 2` of latents between their ends. No clip crosses one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from distill.data.clips import Dataset, DatasetError, unbroken
from distill.data.environments.base import EnvironmentSpec
from distill.methods.sampling import first_frames
from distill.training.trainer import autocast
from world.codecs.convolutional import Codec, to_float, with_state_channels
from world.codecs.state_channels import to_channels
from world.rollout.inputs import action_vectors


@dataclass(frozen=True, slots=True)
class Clips:
    """A batch: latents `b t c h w` float32, actions `b t a` float32. seen: the latents as who starts from the clip's
    pictures has them (first frames' tracked channels are estimates); None where that is no different. codec: whose
    latents they are, where channels are tracked."""

    latents: Tensor
    actions: Tensor
    seen: Tensor | None = None
    codec: Codec | None = None

    @property
    def past(self) -> Tensor:
        """The latents as a past to go on from, `b t c h w`."""
        return self.latents if self.seen is None else self.seen


@torch.no_grad()
def encode_dataset(codec: Codec, dataset: Dataset, target: Path, *, quiet: bool = False) -> None:
    """Encode every training stream into the file `target`, in bf16 where that is fast; done if it is there."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    p = codec.config.temporal_patch
    streams: list[tuple[Tensor, ...]] = []
    for episode in tqdm(dataset.episodes("train"), total=len(dataset.paths("train")), desc="encode", disable=quiet):
        num = len(episode) - (len(episode) - 1) % p
        frames = torch.from_numpy(episode.frames[:num])[None]
        with autocast(True):
            parts = [codec.encode_picture(to_float(part)).half() for part in frames.split(_part_frames(num, p), dim=1)]
        latents = torch.cat(parts, dim=1)
        if dataset.spec.state_variables:
            latents = with_state_channels(latents, true_state_channels(dataset.spec, episode.oracle[:num:p])[None])
        actions = action_vectors(episode.actions().frames(0, num), p)[0]
        stream = (latents[0], actions.half())
        stretches = unbroken(episode.dones[:num], continuing=dataset.spec.continuing)
        whole = len(stretches) == 1
        streams.append(stream if whole else (*stream, torch.tensor([_latents_of(part, p) for part in stretches])))
    partial = target.with_suffix(".partial")
    torch.save(streams, partial)
    partial.replace(target)


def true_state_channels(spec: EnvironmentSpec, oracle: NDArray[np.float32]) -> Tensor:
    """The tracked channels `t k` of frames with these oracle numbers `t n`. Raises DatasetError for a number that the
    oracle does not tell."""
    unknown = [one.name for one in spec.state_variables if one.name not in spec.oracle_names]
    if unknown:
        raise DatasetError(f"{spec.name} is to keep track of {unknown}; its oracle tells {list(spec.oracle_names)}")
    columns = [spec.oracle_names.index(one.name) for one in spec.state_variables]
    return to_channels(spec.state_variables, torch.from_numpy(oracle[:, columns]))


def _latents_of(stretch: tuple[int, int], temporal_patch: int) -> tuple[int, int]:
    """The latents that lie wholly in a stretch of pixel frames; latent i > 0 ends with pixel frame i·p."""
    start, stop = stretch
    first = 0 if start == 0 else 1 + -(-(start - 1) // temporal_patch)
    return first, max(first, (stop - 1) // temporal_patch + 1)


def _part_frames(num: int, temporal_patch: int) -> int:
    """Per-frame codecs encode in pieces; temporal ones whole, since their first frame is special."""
    return 250 if temporal_patch == 1 else num


def typical_stretch(path: Path) -> int:
    """How long a clip at least half of the streams in the file `path` can give, in latent frames."""
    streams: list[tuple[Tensor, ...]] = torch.load(path, weights_only=True)
    lengths = [max(b - max(a, 1) for a, b in _stretches(latents, rest)) for latents, _, *rest in streams]
    return sorted(lengths)[len(lengths) // 2]


def _stretches(latents: Tensor, rest: list[Tensor]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in rest[0].tolist()] if rest else [(0, len(latents))]


class ClipSource(Protocol):
    """Where training clips come from: `ClipSampler`, or a process that is simulated."""

    num_frames: int

    def draw(self, batch: int, generator: torch.Generator, *, max_still: int | None = None) -> Clips: ...


class ClipSampler:
    """Draws clips of `num_frames` latent frames. A `still_share` of them starts from one picture repeated, with no
    action, for a random part of the clip, as a world started from a single picture does.

    codec: whose latents they are, where channels are tracked. On an `estimated_share` of the clips, a random number of
    first frames are then `seen` as the codec estimates them.
    """

    def __init__(
        self,
        path: Path,
        num_frames: int,
        *,
        still_share: float = 0.1,
        codec: Codec | None = None,
        estimated_share: float = 0.5,
        limit: int | None = None,
    ) -> None:
        streams: list[tuple[Tensor, ...]] = torch.load(path, weights_only=True)
        self.streams: list[tuple[Tensor, Tensor]] = []
        self.starts: list[Tensor] = []
        longest = 0
        for latents, actions, *rest in streams[:limit]:
            stretches = _stretches(latents, rest)
            longest = max(longest, *(b - a for a, b in stretches))
            # latent 0 was led to by no action
            starts = torch.cat([torch.arange(max(a, 1), max(a, 1, b - num_frames + 1)) for a, b in stretches])
            if len(starts):
                self.streams.append((latents, actions))
                self.starts.append(starts)
        if not self.streams:
            raise DatasetError(
                f"{path} holds no unbroken clip of {num_frames} latent frames after a first one (its longest stretch "
                f"has {longest}): record longer streams or episodes, or train with a smaller window"
            )
        self.num_frames = num_frames
        self.still_share = still_share
        self.codec = codec
        self.estimated_share = estimated_share

    @property
    def total_frames(self) -> int:
        return sum(len(latents) for latents, _ in self.streams)

    def draw(self, batch: int, generator: torch.Generator, *, max_still: int | None = None) -> Clips:
        """max_still: the longest repeated start, in frames (default: all but one frame of the clip)."""
        length = self.num_frames
        latents, actions = [], []
        for pick in torch.randint(len(self.streams), (batch,), generator=generator).tolist():
            stream, stream_actions = self.streams[pick]
            starts = self.starts[pick]
            start = int(starts[torch.randint(len(starts), (1,), generator=generator)])
            still = 0
            if float(torch.rand((), generator=generator)) < self.still_share:
                still = int(torch.randint(1, (max_still or length - 1) + 1, (1,), generator=generator))
            index = start + (torch.arange(length) - still).clamp_min(0)
            row = stream_actions[index].clone()
            clip = stream[index]
            if still:
                row[: still + 1] = 0  # every showing of the picture, also the last, before anything moves
                if self.codec is not None and (num := len(self.codec.config.state_variables)):
                    clip[: still + 1, -num:] = 0  # nothing that is tracked changes
            latents.append(clip)
            actions.append(row)
        clips = Clips(torch.stack(latents).float(), torch.stack(actions).float(), codec=self.codec)
        if self.codec is None:
            return clips
        first = first_frames(batch, length, self.estimated_share, generator)
        with torch.no_grad():
            return replace(
                clips, seen=torch.where(first, self.codec.with_estimated_state(clips.latents), clips.latents)
            )
