"""Tasks that train the codec, and its statistics. Owns batches and noise; knows nothing about the use of the latents.

Noise on the unit-variance latents makes the space smooth and gives moving things large codes, which is what the
diffusion model needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from distill.codec.losses import CodecLossConfig, psnr_of, reconstruction_loss
from distill.data.clips import Dataset
from distill.training.precision import autocast
from world.codecs.convolutional import ConvolutionalCodec
from world.codecs.pixels import to_float


class CodecTask:
    """Train encoder and decoder together on short clips of neighbouring frames, held in memory."""

    optimised: ClassVar = {"codec": 1.0}
    averaged = "codec"

    def __init__(
        self, codec: ConvolutionalCodec, dataset: Dataset, config: CodecLossConfig, *, num_episodes: int = 60
    ) -> None:
        self.codec = codec
        self.config = config
        self.modules: Mapping[str, nn.Module] = {"codec": codec}
        self.clip_frames = max(2, 1 + codec.temporal_patch)
        self.episodes = list(dataset.episodes("train", num_episodes))
        self.streams = [episode.frames for episode in self.episodes]
        self.lengths = np.array([len(frames) for frames in self.streams])

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        frames = to_float(self.batch(generator))
        with autocast(self.codec):
            raw = self.codec.raw_features(frames).float()
            latents = self._normalise(raw)
            noise = torch.randn(latents.shape, generator=generator) * self.config.latent_noise
            keep = (torch.rand(len(latents), 1, 1, 1, 1, generator=generator) < 0.75).float()
            decoded, _ = self.codec.decode(latents + noise * keep, self.codec.initial_state(len(frames)))
        yield "codec", self._loss(decoded.float(), frames), {"psnr": psnr_of(decoded, frames)}

    def _loss(self, decoded: Tensor, frames: Tensor) -> Tensor:
        return reconstruction_loss(decoded, frames, self.codec.background, self.config)

    def batch(self, generator: torch.Generator) -> Tensor:
        """Draw clips of neighbouring frames, uint8 `b t h w 3`."""
        picks = torch.randint(len(self.streams), (self.config.batch_size,), generator=generator).tolist()
        clips = []
        for pick in picks:
            start = int(torch.randint(1, int(self.lengths[pick]) - self.clip_frames + 1, (1,), generator=generator))
            clips.append(self.streams[pick][start : start + self.clip_frames])
        return torch.from_numpy(np.stack(clips))

    def _normalise(self, raw: Tensor) -> Tensor:
        """Normalise by the batch's statistics, and update the codec's running ones."""
        mean = raw.mean(dim=(0, 1))
        std = ((raw - mean).square().mean(dim=(0, 1, 3, 4)) + 1e-6).sqrt()[:, None, None]
        with torch.no_grad():
            self.codec.latent_mean.lerp_(mean, self.config.statistics_momentum)
            self.codec.latent_std.lerp_(std, self.config.statistics_momentum)
        return self.codec.soft_bound((raw - mean) / std)


class DecoderTask(CodecTask):
    """Train the decoder alone, for the latents that diffusion models are trained on; the encoder stays as it is."""

    def __init__(
        self, codec: ConvolutionalCodec, dataset: Dataset, config: CodecLossConfig, *, num_episodes: int = 60
    ) -> None:
        super().__init__(codec, dataset, config, num_episodes=num_episodes)
        codec.encoder.requires_grad_(False)

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        frames = to_float(self.batch(generator))
        with autocast(self.codec):
            with torch.no_grad():
                latents = self.codec.encode(frames)[0].float()
            latents = latents + torch.randn(latents.shape, generator=generator) * self.config.decoder_noise
            decoded, _ = self.codec.decode(latents, self.codec.initial_state(len(frames)))
        yield "codec", self._loss(decoded.float(), frames), {"psnr": psnr_of(decoded, frames)}


@torch.no_grad()
def fix_background(
    codec: ConvolutionalCodec, dataset: Dataset, *, num_episodes: int = 20, per_episode: int = 25
) -> None:
    """Set the codec's background to the median picture of training episodes. Where the camera moves, it shows little
    and does no harm."""
    frames = [
        episode.frames[np.linspace(0, len(episode) - 1, per_episode).astype(int)]
        for episode in dataset.episodes("train", num_episodes)
    ]
    median = np.median(np.concatenate(frames), axis=0).round().astype(np.uint8)
    codec.background.copy_(to_float(torch.from_numpy(median)[None, None])[0, 0])


@torch.no_grad()
def fix_statistics(codec: ConvolutionalCodec, dataset: Dataset, *, num_episodes: int = 20) -> None:
    """Replace the running latent statistics with exact ones over training episodes."""
    sums, squares, count = torch.zeros_like(codec.latent_mean), torch.zeros_like(codec.latent_mean), 0
    for episode in dataset.episodes("train", num_episodes):
        num = len(episode) - (len(episode) - 1) % codec.temporal_patch
        for part in torch.from_numpy(episode.frames[:num]).split(1 + 64 * codec.temporal_patch):
            usable = len(part) - (len(part) - 1) % codec.temporal_patch
            raw = codec.raw_features(to_float(part[None, :usable])).float()[0]
            sums, squares, count = sums + raw.sum(0), squares + raw.square().sum(0), count + len(raw)
    mean = sums / count
    variance = (squares / count - mean.square()).mean(dim=(1, 2))
    codec.latent_mean.copy_(mean)
    codec.latent_std.copy_(variance.clamp_min(1e-8).sqrt()[:, None, None])
