"""A student's rollouts, kept between training steps. Owns each one's progress and restart; runs no network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.data.latents import ClipSource
from world.model.config import TransformerConfig


class RolloutBuffer(nn.Module):
    """Rollouts that continue from one training step to the next.

    A student is thus trained far into rollouts of its own output, although each step generates only a few frames
    (streaming long tuning, LongLive, arXiv:2509.22622, §3.2). The buffers are saved and resumed with the stage.

    latents `b f c h w`: the frames in sink and window. actions `b t a`: all actions of the rollout. position, end
    int64 `b`: indices into the actions of the next frame and of the rollout's end.
    """

    latents: Tensor
    actions: Tensor
    position: Tensor
    end: Tensor

    def __init__(self, config: TransformerConfig, clips: ClipSource, batch_size: int) -> None:
        super().__init__()
        self.clips = clips
        self.config = config
        self.context_frames = config.sink_frames + config.window_frames
        shape = (batch_size, self.context_frames, config.channels, config.height, config.width)
        self.register_buffer("latents", torch.zeros(shape))
        self.register_buffer("actions", torch.zeros(batch_size, clips.num_frames, config.action_dim))
        self.register_buffer("position", torch.zeros(batch_size, dtype=torch.int64))
        self.register_buffer("end", torch.zeros(batch_size, dtype=torch.int64))

    def next(self, num_frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the sink and last frames, and the actions of these and of the next `num_frames` frames.

        Rollouts with fewer than `num_frames` frames left restart from data, each with a random end, so that rollouts of
        all ages are present at any time. Raises ValueError if the clips are too short for `num_frames`.
        """
        fresh = self.clips.draw(len(self.latents), generator, max_still=self.context_frames - 1)
        first, last = self.context_frames + num_frames, self.clips.num_frames
        if first > last:
            raise ValueError(f"clips of {last} frames leave no room for {num_frames} after {self.context_frames}")
        ends = torch.randint(first, last + 1, self.end.shape, generator=generator)
        over = self.position + num_frames > self.end
        self.latents[over] = fresh.past[over, : self.context_frames]
        self.actions[over] = fresh.actions[over]
        self.position[over] = self.context_frames
        self.end[over] = ends[over]
        index = self.position[:, None] + torch.arange(-self.context_frames, num_frames)
        index[:, : self.config.sink_frames] = torch.arange(self.config.sink_frames)
        return self.latents.clone(), torch.take_along_dim(self.actions, index[:, :, None], dim=1)

    def extend(self, new: Tensor) -> None:
        """Append generated frames `b f c h w`."""
        last = torch.cat([self.latents, new], dim=1)[:, -self.config.window_frames :]
        self.latents[:, self.config.sink_frames :] = last
        self.position += new.shape[1]
