"""Train the codec. Owns its loss and its latent statistics; does not know what the latents will be used for.

Loss: L1 + squared error, weighted where neighbouring frames differ, so that small moving things (a ball of two pixels)
count as much as the still picture; for the decoder alone also around them. Noise on the
unit-variance latents makes the space smooth and gives moving things large codes, which is what the diffusion model
needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.clips import Dataset
from distill.training.trainer import autocast
from world.codecs.convolutional import Codec, to_float

TEXTURE_REACH = 6
"""Pixels: the neighbourhoods that `texture_weight` compares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecLossConfig:
    """Weights of the codec's loss. `change_weight` is added where neighbouring frames differ, `near_weight` within
    `near_reach` pixels of that: without the second a wrong bright pixel beside a moving thing would cost almost
    nothing, without the first a small thing is left out wherever its place is in doubt.
    `flicker_weight`: of the error's own change between frames, so that what stands still is decoded still.
    `foreground_weight`: added where a frame differs from the background, or a small thing at rest is left out.
    `edge_weight`: of the error's change between neighbouring pixels, so that edges and textures stay sharp.
    `texture_weight`: of what is amiss in how busy a neighbourhood is, wherever in it, in space and in time; the error
    alone would rather have no texture than one that is a little displaced.
    `tolerance`: grey levels of error that cost nothing, since a picture is rounded.

    The defaults are those of the joint stage, in which the encoder must first learn that small things exist: weight
    around them, there, teaches it to leave them out. The decoder, alone, gets all (`DECODER_LOSS`)."""

    batch_size: int = 32
    change_weight: float = 60.0
    near_weight: float = 0.0
    near_reach: int = 6
    foreground_weight: float = 0.0
    flicker_weight: float = 0.0
    edge_weight: float = 0.0
    texture_weight: float = 0.0
    change_gain: float = 4.0
    tolerance: float = 0.0
    latent_noise: float = 0.2
    decoder_noise: float = 0.05
    statistics_momentum: float = 0.02


DECODER_LOSS = CodecLossConfig(near_weight=20.0, foreground_weight=20.0, flicker_weight=4.0, tolerance=0.3)


class CodecTask:
    """Optimises encoder and decoder together on pairs of neighbouring frames held in memory."""

    optimised: ClassVar = {"codec": 1.0}
    averaged = "codec"

    def __init__(self, codec: Codec, dataset: Dataset, config: CodecLossConfig, *, num_episodes: int = 60) -> None:
        self.codec = codec
        self.config = config
        self.modules: Mapping[str, nn.Module] = {"codec": codec}
        self.clip_frames = max(2, 1 + codec.config.temporal_patch)
        self.episodes = list(dataset.episodes("train", num_episodes))
        self.streams = [episode.frames for episode in self.episodes]
        self.lengths = np.array([len(frames) for frames in self.streams])

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        frames = to_float(self.batch(generator))
        with autocast(True):
            raw = self.codec.raw_features(frames).float()
            latents = self._track_and_normalise(raw)
            noise = torch.randn(latents.shape, generator=generator) * self.config.latent_noise
            keep = (torch.rand(len(latents), 1, 1, 1, 1, generator=generator) < 0.75).float()
            decoded, _ = self.codec.decode(latents + noise * keep, self.codec.initial_state(len(frames)))
        yield "codec", self._loss(decoded.float(), frames), {"psnr": psnr_of(decoded, frames)}

    def _loss(self, decoded: Tensor, frames: Tensor) -> Tensor:
        return reconstruction_loss(decoded, frames, self.codec.background, self.config)

    def batch(self, generator: torch.Generator) -> Tensor:
        """uint8 `b t h w 3`, neighbouring frames."""
        picks = torch.randint(len(self.streams), (self.config.batch_size,), generator=generator).tolist()
        clips = []
        for pick in picks:
            start = int(torch.randint(1, int(self.lengths[pick]) - self.clip_frames + 1, (1,), generator=generator))
            clips.append(self.streams[pick][start : start + self.clip_frames])
        return torch.from_numpy(np.stack(clips))

    def _track_and_normalise(self, raw: Tensor) -> Tensor:
        """Normalise by the batch's statistics, whose running means become the codec's."""
        mean = raw.mean(dim=(0, 1))
        std = ((raw - mean).square().mean(dim=(0, 1, 3, 4)) + 1e-6).sqrt()[:, None, None]
        with torch.no_grad():
            self.codec.latent_mean.lerp_(mean, self.config.statistics_momentum)
            self.codec.latent_std.lerp_(std, self.config.statistics_momentum)
        return self.codec.soft_bound((raw - mean) / std)


class DecoderTask(CodecTask):
    """Optimises the decoder alone, for the latents that diffusion models are trained on: the encoder stays."""

    def __init__(self, codec: Codec, dataset: Dataset, config: CodecLossConfig, *, num_episodes: int = 60) -> None:
        super().__init__(codec, dataset, config, num_episodes=num_episodes)
        codec.encoder.requires_grad_(False)

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        frames = to_float(self.batch(generator))
        with autocast(True):
            with torch.no_grad():
                latents = self.codec.encode(frames)[0].float()
            latents = latents + torch.randn(latents.shape, generator=generator) * self.config.decoder_noise
            decoded, _ = self.codec.decode(latents, self.codec.initial_state(len(frames)))
        yield "codec", self._loss(decoded.float(), frames), {"psnr": psnr_of(decoded, frames)}


def reconstruction_loss(decoded: Tensor, frames: Tensor, background: Tensor, config: CodecLossConfig) -> Tensor:
    """Weighted L1 + squared error of `b t 3 h w`, the L1 of its change in time and space, and of how much busier or
    calmer than the truth its neighbourhoods are; background: `3 h w`."""
    change = (frames[:, 1:] - frames[:, :-1]).abs().amax(dim=2)
    change = torch.cat([change[:, :1], change], dim=1)  # the first frame weighs what is about to change
    change = (change * config.change_gain).clamp(max=1.0)
    weight = 1 + config.change_weight * change
    if config.near_weight:
        reach = config.near_reach
        weight = weight + config.near_weight * nn.functional.max_pool2d(change, 2 * reach + 1, stride=1, padding=reach)
    if config.foreground_weight:
        foreground = ((frames - background).abs().amax(dim=2) * config.change_gain).clamp(max=1.0)
        weight = weight + config.foreground_weight * foreground
    error = nn.functional.softshrink(decoded - frames, config.tolerance / 127.5)
    flicker = (error[:, 1:] - error[:, :-1]).abs().mean()
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
    loss: Tensor = (weight[:, :, None] * (error.abs() + error.square())).mean()
    loss = loss + config.flicker_weight * flicker + config.edge_weight * edges
    if config.texture_weight:
        amiss = [(a - b).abs().mean() for a, b in zip(_busyness(decoded), _busyness(frames), strict=True)]
        loss = loss + config.texture_weight * torch.stack(amiss).sum()
    return loss


def _busyness(frames: Tensor) -> list[Tensor]:
    """How much neighbouring pixels differ, down and across and from frame to frame, around each place: frames
    `b t 3 h w`."""
    differences = [frames.diff(dim=dim).abs().flatten(0, 1) for dim in (3, 4, 1)]
    return [nn.functional.avg_pool2d(part, TEXTURE_REACH, stride=2) for part in differences]


def psnr_of(decoded: Tensor, frames: Tensor) -> float:
    return float(-10 * torch.log10((decoded.detach().float() - frames).square().mean() / 4))


@torch.no_grad()
def fix_background(codec: Codec, dataset: Dataset, *, num_episodes: int = 20, per_episode: int = 25) -> None:
    """Set the codec's background to the median picture of training episodes. Where the camera moves it shows little,
    and costs nothing."""
    frames = [
        episode.frames[np.linspace(0, len(episode) - 1, per_episode).astype(int)]
        for episode in dataset.episodes("train", num_episodes)
    ]
    median = np.median(np.concatenate(frames), axis=0).round().astype(np.uint8)
    codec.background.copy_(to_float(torch.from_numpy(median)[None, None])[0, 0])


@torch.no_grad()
def fix_statistics(codec: Codec, dataset: Dataset, *, num_episodes: int = 20) -> None:
    """Replace the running latent statistics by exact ones over training episodes."""
    sums, squares, count = torch.zeros_like(codec.latent_mean), torch.zeros_like(codec.latent_mean), 0
    for episode in dataset.episodes("train", num_episodes):
        num = len(episode) - (len(episode) - 1) % codec.config.temporal_patch
        for part in torch.from_numpy(episode.frames[:num]).split(1 + 64 * codec.config.temporal_patch):
            usable = len(part) - (len(part) - 1) % codec.config.temporal_patch
            raw = codec.raw_features(to_float(part[None, :usable])).float()[0]
            sums, squares, count = sums + raw.sum(0), squares + raw.square().sum(0), count + len(raw)
    mean = sums / count
    variance = (squares / count - mean.square()).mean(dim=(1, 2))
    codec.latent_mean.copy_(mean)
    codec.latent_std.copy_(variance.clamp_min(1e-8).sqrt()[:, None, None])
