"""Train the decoder once more, for latents that the student predicts. Owns how these are made; the loss is the codec's.

A student that has learned little, or that cannot know what comes next, predicts means, which decode to soft pictures.
With a loss that also compares local contrast, the decoder alone learns to draw what such a latent stands for. The
encoder, and with it what the student knows, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distill.codec.losses import CodecLossConfig, psnr_of, reconstruction_loss
from distill.codec.tasks import DecoderTask
from distill.data.clips import Dataset, clip_starts
from distill.data.latents import Clips
from distill.tasks.context_corruption import ContextCorruption, LevelConfig, corrupt_context
from distill.training.precision import autocast
from world.codecs.convolutional import ConvolutionalCodec
from world.codecs.pixels import to_float
from world.model.patterns import TeacherForcing
from world.model.transformer import Transformer
from world.rollout.inputs import action_vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderFinetuningConfig:
    """batch_size: clips of `num_latents` latents each. predicted: how the student predicts latents from its own
    predictions. The other clips are decoded from their true latents, so that the decoder still fits the encoder."""

    batch_size: int = 6
    num_latents: int = 12
    levels: LevelConfig = field(default_factory=LevelConfig)
    predicted: ContextCorruption = field(
        default_factory=lambda: ContextCorruption(resampled_share=0.67, faded_share=0.0)
    )


class DecoderFinetuningTask(DecoderTask):
    """Train the decoder for true and for predicted latents."""

    def __init__(
        self,
        codec: ConvolutionalCodec,
        student: Transformer,
        dataset: Dataset,
        loss: CodecLossConfig,
        config: DecoderFinetuningConfig,
        *,
        num_episodes: int = 60,
    ) -> None:
        super().__init__(codec, dataset, loss, num_episodes=num_episodes)
        self.student = student.requires_grad_(False)
        self.finetuning = config
        self.pattern = TeacherForcing(student.config, config.num_latents)
        p = codec.temporal_patch
        self.clip_frames = 1 + p * (config.num_latents - 1)
        self.actions = [episode.actions() for episode in self.episodes]
        continuing = dataset.spec.continuing
        self.starts = [clip_starts(episode.dones, self.clip_frames, continuing=continuing) for episode in self.episodes]
        self.usable = [number for number, starts in enumerate(self.starts) if len(starts)]

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        frames, vectors = self._clips(generator)
        with autocast(self.codec):
            with torch.no_grad():
                latents = self.codec.encode(frames)[0].float()
                clips = Clips(latents, vectors, codec=self.codec)
                latents = corrupt_context(
                    self.student,
                    clips,
                    self.pattern,
                    self.finetuning.levels,
                    self.finetuning.predicted,
                    generator,
                )
            decoded, _ = self.codec.decode(latents, self.codec.initial_state(len(frames)))
        loss = reconstruction_loss(decoded.float(), frames, self.codec.background, self.config)
        yield "codec", loss, {"psnr": psnr_of(decoded, frames)}

    def _clips(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw frames `b t 3 h w` and their action vectors `b n a`."""
        frames, vectors = [], []
        for _ in range(self.finetuning.batch_size):
            number = self.usable[int(torch.randint(len(self.usable), (1,), generator=generator))]
            starts = self.starts[number]
            first = int(starts[int(torch.randint(len(starts), (1,), generator=generator))])
            last = first + self.clip_frames
            frames.append(self.streams[number][first:last])
            actions = self.actions[number].frames(first, last)
            vectors.append(action_vectors(actions, self.codec.temporal_patch))
        return to_float(torch.from_numpy(np.stack(frames))), torch.cat(vectors)
