"""The stage `state_estimator`: the codec learns to estimate from a picture what the world keeps track of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.data.latents import ClipSource
from world.codecs.convolutional import ConvolutionalCodec


@dataclass(frozen=True, kw_only=True, slots=True)
class StateEstimatorConfig:
    """batch_size: clips."""

    batch_size: int = 24


class StateEstimatorTask:
    """Optimises the tracker to read the tracked channels off the latents of two neighbouring pictures. Where these
    leave several answers, it learns their mean, which is short: an honest "unsure"."""

    optimised: ClassVar = {"state_estimator": 1.0}
    averaged = "state_estimator"

    def __init__(self, codec: ConvolutionalCodec, clips: ClipSource, config: StateEstimatorConfig) -> None:
        if codec.state_estimator is None:
            raise ValueError("this codec tracks nothing: its config has no `state_variables`")
        self.modules: Mapping[str, nn.Module] = {"state_estimator": codec.state_estimator}
        self.codec = codec
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        latents = self.clips.draw(self.config.batch_size, generator).latents
        own = self.codec.config.channels
        with_estimated_state = self.codec.with_estimated_state(latents)
        yield "state_estimator", F.mse_loss(with_estimated_state[:, 1:, own:, 0, 0], latents[:, 1:, own:, 0, 0]), {}
