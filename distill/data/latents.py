"""Clips of latents in memory. Owns encoding a dataset once and drawing training clips; knows no loss.

`encode_dataset` writes one file. It holds for each training stream the float16 latents `n c h w` (with the true values
in the state channels, not the codec's estimates) and the action vectors `n a` (the actions of all pixel frames of a
latent side by side). If episodes end within the stream, it also holds the stretches `k 2` of latents between the ends
of episodes; no clip crosses one.
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
from distill.training.precision import autocast
from distill.training.state import load_file
from world.codecs.convolutional import ConvolutionalCodec, with_state_channels
from world.codecs.pixels import to_float
from world.codecs.state_channels import to_channels
from world.rollout.inputs import action_vectors


@dataclass(frozen=True, slots=True)
class Clips:
    """A batch of clips: latents `b t c h w` float32, actions `b t a` float32.

    seen: the latents as a rollout that starts from the clip's pictures would have them, with estimates in the state
    channels of the first frames; None if there is no difference. codec: the codec of the latents, if they have state
    channels.
    """

    latents: Tensor
    actions: Tensor
    seen: Tensor | None = None
    codec: ConvolutionalCodec | None = None

    @property
    def past(self) -> Tensor:
        """The latents to condition on as the past, `b t c h w`."""
        return self.latents if self.seen is None else self.seen


@torch.no_grad()
def encode_dataset(codec: ConvolutionalCodec, dataset: Dataset, target: Path, *, quiet: bool = False) -> None:
    """Encode every training stream into the file `target`, in bf16 where that is fast; do nothing if it exists."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    p = codec.temporal_patch
    streams: list[tuple[Tensor, ...]] = []
    for episode in tqdm(dataset.episodes("train"), total=len(dataset.paths("train")), desc="encode", disable=quiet):
        num = len(episode) - (len(episode) - 1) % p
        frames = torch.from_numpy(episode.frames[:num])[None]
        with autocast(codec):
            parts = [codec.encode_picture(to_float(part)).half() for part in frames.split(_part_frames(num, p), dim=1)]
        latents = torch.cat(parts, dim=1)
        if dataset.spec.state_variables:
            latents = with_state_channels(latents, true_state_channels(dataset.spec, episode.oracle[:num:p])[None])
        actions = action_vectors(episode.actions().frames(0, num), p)[0]
        stream: tuple[Tensor, ...] = (latents[0], actions.half())
        stretches = unbroken(episode.dones[:num], continuing=dataset.spec.continuing)
        if len(stretches) > 1:
            stream = (*stream, torch.tensor([_latents_of(part, p) for part in stretches]))
        streams.append(stream)
    partial = target.with_suffix(".partial")
    torch.save(streams, partial)
    partial.replace(target)


def true_state_channels(spec: EnvironmentSpec, oracle: NDArray[np.float32]) -> Tensor:
    """Return the state channels `t k` for the oracle's values `t n`.

    Raises DatasetError for a state variable that the oracle does not report.
    """
    unknown = [variable.name for variable in spec.state_variables if variable.name not in spec.oracle_names]
    if unknown:
        raise DatasetError(
            f"{spec.name} has the state variables {unknown}, which its oracle does not report: choose from "
            f"{list(spec.oracle_names)}"
        )
    columns = [spec.oracle_names.index(variable.name) for variable in spec.state_variables]
    return to_channels(spec.state_variables, torch.from_numpy(oracle[:, columns]))


def _latents_of(stretch: tuple[int, int], temporal_patch: int) -> tuple[int, int]:
    """Return the range of latents entirely within a stretch of pixel frames; latent i > 0 ends with pixel frame i·p."""
    start, stop = stretch
    first = 0 if start == 0 else 1 + -(-(start - 1) // temporal_patch)
    return first, max(first, (stop - 1) // temporal_patch + 1)


def _part_frames(num: int, temporal_patch: int) -> int:
    """Return how many frames to encode at once: temporal codecs need whole streams, as the first frame is special."""
    return 250 if temporal_patch == 1 else num


def typical_stretch(path: Path) -> int:
    """Return the clip length, in latent frames, that at least half of the streams in the file `path` can provide."""
    streams: list[tuple[Tensor, ...]] = load_file(path)
    lengths = [max(b - max(a, 1) for a, b in _stretches(latents, rest)) for latents, _, *rest in streams]
    return sorted(lengths)[len(lengths) // 2]


def _stretches(latents: Tensor, rest: list[Tensor]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in rest[0].tolist()] if rest else [(0, len(latents))]


class ClipSource(Protocol):
    """A source of training clips: `ClipSampler`, or a simulated process."""

    num_frames: int

    def draw(self, batch: int, generator: torch.Generator, *, max_still: int | None = None) -> Clips: ...


class ClipSampler:
    """Draws clips of `num_frames` latent frames from encoded streams.

    still_share: of the clips that begin with one picture repeated without actions for a random part of the clip, like
    a world that is started from a single picture. codec: the codec of the latents, if they have state channels; then
    on an `estimated_share` of the clips a random number of first frames has the codec's estimates in `seen`. limit:
    number of streams to use. Raises DatasetError if no stream is long enough.
    """

    def __init__(
        self,
        path: Path,
        num_frames: int,
        *,
        still_share: float = 0.1,
        codec: ConvolutionalCodec | None = None,
        estimated_share: float = 0.5,
        limit: int | None = None,
    ) -> None:
        streams: list[tuple[Tensor, ...]] = load_file(path)
        self.streams: list[tuple[Tensor, Tensor]] = []
        self.starts: list[Tensor] = []
        longest = 0
        for latents, actions, *rest in streams[:limit]:
            stretches = _stretches(latents, rest)
            longest = max(longest, *(b - a for a, b in stretches))
            # no action led to latent 0
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
        """The number of latent frames of all streams."""
        return sum(len(latents) for latents, _ in self.streams)

    def draw(self, batch: int, generator: torch.Generator, *, max_still: int | None = None) -> Clips:
        """Draw a batch. max_still: the longest repeated start, in frames (default: all but one frame of the clip)."""
        picks = torch.randint(len(self.streams), (batch,), generator=generator).tolist()
        rows = [self._draw_row(pick, max_still or self.num_frames - 1, generator) for pick in picks]
        latents, actions = (torch.stack(parts).float() for parts in zip(*rows, strict=True))
        clips = Clips(latents, actions, codec=self.codec)
        if self.codec is None:
            return clips
        first = first_frames(batch, self.num_frames, self.estimated_share, generator)
        with torch.no_grad():
            return replace(
                clips, seen=torch.where(first, self.codec.with_estimated_state(clips.latents), clips.latents)
            )

    def _draw_row(self, pick: int, max_still: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the latents `t c h w` and actions `t a` of one clip from stream number `pick`."""
        stream, stream_actions = self.streams[pick]
        starts = self.starts[pick]
        start = int(starts[torch.randint(len(starts), (1,), generator=generator)])
        still = 0
        if float(torch.rand((), generator=generator)) < self.still_share:
            still = int(torch.randint(1, max_still + 1, (1,), generator=generator))
        index = start + (torch.arange(self.num_frames) - still).clamp_min(0)
        actions, latents = stream_actions[index].clone(), stream[index]
        if still:
            actions[: still + 1] = 0  # every repetition of the picture, including the last, precedes any motion
            if self.codec is not None and (num := len(self.codec.state_variables)):
                latents[: still + 1, -num:] = 0  # the changes of the state variables: nothing moves
        return latents, actions
