"""Train the codec. Owns its loss and its latent statistics; does not know what the latents will be used for.

Loss: L1 + squared error, weighted by what changes between neighbouring frames, so that small moving things (a ball of
two pixels) count as much as the picture around them. Noise on the unit-variance latents makes the space smooth and
gives moving things large codes, which is what the diffusion model needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from distill.clips import Dataset
from distill.trainer import autocast
from world.codec import Codec, to_float


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecLossConfig:
    """Weights of the codec's loss. `change_weight` multiplies where neighbouring frames differ."""

    batch_size: int = 32
    change_weight: float = 60.0
    change_gain: float = 4.0
    latent_noise: float = 0.2
    statistics_momentum: float = 0.02


class CodecTask:
    """Optimises a codec on pairs of neighbouring frames held in memory."""

    def __init__(self, codec: Codec, dataset: Dataset, config: CodecLossConfig, *, num_episodes: int = 60) -> None:
        self.codec = codec
        self.config = config
        self.modules: Mapping[str, nn.Module] = {"codec": codec}
        self.optimised = {"codec": 1.0}
        self.averaged = "codec"
        self.clip_frames = max(2, 1 + codec.config.temporal_patch)
        self.streams = [episode.frames for episode in dataset.episodes("train", num_episodes)]
        self.lengths = np.array([len(frames) for frames in self.streams])

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        frames = to_float(self._batch(generator))
        with autocast(True):
            raw = self.codec.raw_features(frames).float()
            latents = self._track_and_normalise(raw)
            noise = torch.randn(latents.shape, generator=generator) * self.config.latent_noise
            keep = (torch.rand(len(latents), 1, 1, 1, 1, generator=generator) < 0.75).float()
            decoded, _ = self.codec.decode(latents + noise * keep, self.codec.initial_state(len(frames)))
        loss, psnr = self._loss(decoded.float(), frames)
        yield "codec", loss, {"psnr": psnr}

    def _batch(self, generator: torch.Generator) -> Tensor:
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

    def _loss(self, decoded: Tensor, frames: Tensor) -> tuple[Tensor, float]:
        change = (frames[:, 1:] - frames[:, :-1]).abs().amax(dim=2, keepdim=True)
        change = torch.cat([change[:, :1], change], dim=1)  # the first frame weighs what is about to change
        weight = 1 + self.config.change_weight * (change * self.config.change_gain).clamp(max=1.0)
        error = decoded - frames
        loss = (weight * (error.abs() + error.square())).mean()
        return loss, float(-10 * torch.log10(error.detach().square().mean() / 4))


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
