"""Train the codec's state estimator, which estimates the state variables from a picture. Owns its loss and draws."""

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
    """batch_size: in clips."""

    batch_size: int = 24


class StateEstimatorTask:
    """Train the estimator to read the state channels off the latents of two neighbouring pictures. Where these leave
    several answers, it learns their mean, which is short: an honest "unsure"."""

    optimised: ClassVar = {"state_estimator": 1.0}
    averaged = "state_estimator"

    def __init__(self, codec: ConvolutionalCodec, clips: ClipSource, config: StateEstimatorConfig) -> None:
        if codec.state_estimator is None:
            raise ValueError("this codec has no state estimator: its config names no `state_variables`")
        self.modules: Mapping[str, nn.Module] = {"state_estimator": codec.state_estimator}
        self.codec = codec
        self.clips = clips
        self.config = config

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        latents = self.clips.draw(self.config.batch_size, generator).latents
        state = slice(self.codec.config.channels, None)
        estimated = self.codec.with_estimated_state(latents)
        yield "state_estimator", F.mse_loss(estimated[:, 1:, state, 0, 0], latents[:, 1:, state, 0, 0]), {}
