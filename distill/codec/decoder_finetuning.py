"""Train the decoder once more, for what the student predicts. Owns how predictions are made; the loss is the codec's.

A student that has learned little, or that cannot know, predicts means: soft pictures. The decoder alone, asked also
that neighbourhoods be as busy as in truth, learns to draw what such a latent stands for. The encoder, and so what the
student knows, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distill.codec.tasks import CodecLossConfig, DecoderTask, psnr_of, reconstruction_loss
from distill.data.clips import Dataset, clip_starts
from distill.data.latents import Clips
from distill.tasks.context_corruption import ContextCorruption, LevelConfig, corrupt_context
from distill.training.trainer import autocast
from world.codecs.convolutional import Codec, to_float
from world.model.patterns import TeacherForcing
from world.model.transformer import Transformer
from world.rollout.inputs import action_vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderFinetuningConfig:
    """batch_size: clips of `num_latents`. predicted: how the student predicts them from its own predictions; the other
    clips are decoded from their true latents, so that the codec stays one."""

    batch_size: int = 6
    num_latents: int = 12
    levels: LevelConfig = field(default_factory=LevelConfig)
    predicted: ContextCorruption = field(
        default_factory=lambda: ContextCorruption(resampled_share=0.67, faded_share=0.0)
    )


class DecoderFinetuningTask(DecoderTask):
    """Optimises the decoder for true and for predicted latents."""

    def __init__(
        self,
        codec: Codec,
        student: Transformer,
        dataset: Dataset,
        loss: CodecLossConfig,
        config: DecoderFinetuningConfig,
        *,
        num_episodes: int = 60,
    ) -> None:
        super().__init__(codec, dataset, loss, num_episodes=num_episodes)
        self.student = student.requires_grad_(False)
        self.decoder_finetuning = config
        self.pattern = TeacherForcing(student.config, config.num_latents)
        p = codec.config.temporal_patch
        self.clip_frames = 1 + p * (config.num_latents - 1)
        self.actions = [episode.actions() for episode in self.episodes]
        continuing = dataset.spec.continuing
        self.starts = [clip_starts(episode.dones, self.clip_frames, continuing=continuing) for episode in self.episodes]
        self.usable = [number for number, starts in enumerate(self.starts) if len(starts)]

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        frames, vectors = self._clips(generator)
        with autocast(True):
            with torch.no_grad():
                latents = self.codec.encode(frames)[0].float()
                clips = Clips(latents, vectors, codec=self.codec)
                given = corrupt_context(
                    self.student,
                    clips,
                    self.pattern,
                    self.decoder_finetuning.levels,
                    self.decoder_finetuning.predicted,
                    generator,
                )
            decoded, _ = self.codec.decode(given, self.codec.initial_state(len(frames)))
        loss = reconstruction_loss(decoded.float(), frames, self.codec.background, self.config)
        yield "codec", loss, {"psnr": psnr_of(decoded, frames)}

    def _clips(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Frames `b t 3 h w` and action vectors `b n a`."""
        frames, vectors = [], []
        for _ in range(self.decoder_finetuning.batch_size):
            number = self.usable[int(torch.randint(len(self.usable), (1,), generator=generator))]
            starts = self.starts[number]
            first = int(starts[int(torch.randint(len(starts), (1,), generator=generator))])
            last = first + self.clip_frames
            frames.append(self.streams[number][first:last])
            actions = self.actions[number].frames(first, last)
            vectors.append(action_vectors(actions, self.codec.config.temporal_patch))
        return to_float(torch.from_numpy(np.stack(frames))), torch.cat(vectors)
