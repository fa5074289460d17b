"""Frames ↔ latents. Owns the codec interface with state and the convolutional codec; knows nothing of time beyond it.

A codec maps pixel frames `b t c h w` in [−1, 1] to normalised latents and back. Decoding may need what came before:
that state is a tensor tree per session (empty for the per-frame codec), returned by every call and handed to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from world.codecs.state_channels import StateVariable, advance_state_channels, num_channels
from world.errors import ShapeError

DEAD_ZONE = 1 / 127.5
"""One grey level of frames in [−1, 1]."""

CodecState = dict[str, Tensor]
"""Tensors with the session as first dimension; empty when the codec needs no history."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecConfig:
    """A convolutional codec: `temporal_patch` p maps 1 + p·k pixel frames to 1 + k latents (p = 1: one to one).

    One latent frame is `channels × height/16 × width/16`; `widths` are the feature counts at 1/4, 1/8 and 1/16.
    tracked: what the world keeps track of beyond what a picture shows; further channels, the same at every position.
    """

    height: int
    width: int
    channels: int = 8
    widths: tuple[int, int, int] = (48, 96, 160)
    temporal_patch: int = 1
    bound: float = 4.0
    state_variables: tuple[StateVariable, ...] = ()

    def __post_init__(self) -> None:
        if self.height % 16 or self.width % 16:
            raise ShapeError(f"frame size {self.height}x{self.width}: both must be multiples of 16")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.channels + num_channels(self.state_variables), self.height // 16, self.width // 16


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))); the second convolution starts small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.silu(self.conv1(F.silu(x))))
        return x + y


class Codec(nn.Module):
    """Convolutional codec with a smooth, unit-variance latent space.

    Latents are stored relative to their mean at each position (a still background is all zeros), scaled per channel
    and softly bounded, so that no small bright thing outshouts the rest. Frames are decoded as `background` plus a
    difference that is 0 unless it exceeds one grey level, so that what stands still is decoded still. With
    `temporal_patch` p > 1 the encoder sees
    p frames at once (the first frame counts p times), the decoder the latent before; that latent is the state.

    Tracked channels are estimated by `state_estimator` from a picture and the one before it where a stream starts; from there
    on the transformer predicts them like the rest, and `advance_state_channels` holds them. The decoder does not see them.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        w4, w8, w16 = config.widths
        _, h, w = config.latent_shape
        c, p = config.channels, config.temporal_patch
        self.encoder = nn.Sequential(
            nn.Conv2d(48 * p, w4, 3, padding=1),
            ResidualBlock(w4),
            nn.Conv2d(w4, w8, 4, stride=2, padding=1),
            ResidualBlock(w8),
            nn.Conv2d(w8, w16, 4, stride=2, padding=1),
            ResidualBlock(w16),
            nn.SiLU(),
            nn.Conv2d(w16, c, 1),
        )
        self.position = nn.Parameter(torch.zeros(w16, h, w))
        self.from_latents = nn.Conv2d(c if p == 1 else 2 * c, w16, 3, padding=1)
        self.decoder = nn.Sequential(
            ResidualBlock(w16),
            nn.Conv2d(w16, 4 * w8, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(w8),
            nn.Conv2d(w8, 4 * w4, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(w4),
            nn.SiLU(),
            nn.Conv2d(w4, 48 * p, 3, padding=1),
        )
        self.state_estimator = (
            _state_estimator(2 * c * h * w, num_channels(config.state_variables)) if config.state_variables else None
        )
        self.register_buffer("latent_mean", torch.zeros(c, h, w))
        self.register_buffer("latent_std", torch.ones(c, 1, 1))
        self.register_buffer("background", torch.zeros(3, config.height, config.width))
        self.background: Tensor
        self.latent_mean: Tensor
        self.latent_std: Tensor

    def channels_last(self) -> Self:
        """Lay the convolutions' weights out for CPUs, where that is faster."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        return self

    def initial_state(self, batch: int) -> CodecState:
        """The state before the first latent."""
        if self.config.temporal_patch == 1:
            return {}
        zeros = self.latent_mean.new_zeros(batch, *self.config.latent_shape)
        return {"previous": zeros, "started": torch.zeros(batch, dtype=torch.bool, device=zeros.device)}

    def num_latents(self, num_frames: int) -> int:
        """Latents of a clip of `num_frames` pixel frames that starts a stream. Raises ShapeError if not 1 + p·k."""
        p = self.config.temporal_patch
        if num_frames < 1 or (num_frames - 1) % p:
            raise ShapeError(f"{num_frames} frames: a clip needs 1 + {p}·k frames")
        return 1 + (num_frames - 1) // p

    def raw_features(self, frames: Tensor) -> Tensor:
        """Unnormalised latents of a clip that starts a stream: `b t 3 h w` → `b n c h/16 w/16`."""
        p = self.config.temporal_patch
        self.num_latents(frames.shape[1])
        expected = (3, self.config.height, self.config.width)
        if tuple(frames.shape[2:]) != expected:
            raise ShapeError(f"frames are {tuple(frames.shape[2:])}, this codec takes {expected}")
        frames = torch.cat([frames[:, :1].expand(-1, p - 1, -1, -1, -1), frames], dim=1)
        x = rearrange(frames, "b (n p) c h w -> (b n) (p c) h w", p=p)
        x = F.pixel_unshuffle(x, 4).contiguous(memory_format=torch.channels_last)
        raw: Tensor = self.encoder(x)
        return rearrange(raw, "(b n) c h w -> b n c h w", b=frames.shape[0])

    def normalise(self, raw: Tensor) -> Tensor:
        """Raw features → latents: centred per position, scaled per channel, softly bounded."""
        return self.soft_bound((raw - self.latent_mean) / self.latent_std)

    def soft_bound(self, x: Tensor) -> Tensor:
        """bound·tanh(x / bound)."""
        return self.config.bound * torch.tanh(x / self.config.bound)

    def encode(self, frames: Tensor) -> tuple[Tensor, CodecState]:
        """A clip from its start: frames `b t 3 h w` in [−1, 1] → latents `b n c h w` and the state after the last."""
        latents = self.with_estimated_state(self.encode_picture(frames))
        return latents, self.state_after(latents)

    def encode_picture(self, frames: Tensor) -> Tensor:
        """`encode` without tracked channels and state."""
        return self.normalise(self.raw_features(frames))

    def state_after(self, latents: Tensor) -> CodecState:
        """The state after a stream that ends with these latents `b n c h w`."""
        if self.config.temporal_patch == 1:
            return {}
        started = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        return {"previous": latents[:, -1], "started": started}

    def with_estimated_state(self, latents: Tensor) -> Tensor:
        """Latents `b n c h w` of a stream from its start, with their tracked channels, if any, as estimated from the
        others."""
        picture = latents[:, :, : self.config.channels]
        if self.state_estimator is None:
            return picture
        before = torch.cat([picture[:, :1], picture[:, :-1]], dim=1)
        return with_state_channels(picture, self.state_estimator(torch.cat([before, picture], dim=2)))

    def advance_state_channels(self, before: Tensor, latents: Tensor) -> Tensor:
        """Predicted latents `b n c h w` that follow `before` `b c h w`, as a rollout keeps them: tracked channels, if
        any, are made one at all positions, and follow from those before (see `world.codecs.state_channels`)."""
        if not self.config.state_variables:
            return latents
        own = self.config.channels
        kept = [before[:, own:].mean(dim=(2, 3))]
        for frame in latents[:, :, own:].mean(dim=(3, 4)).unbind(1):
            kept.append(advance_state_channels(self.config.state_variables, kept[-1], frame))
        return with_state_channels(latents[:, :, :own], torch.stack(kept[1:], dim=1))

    def decode(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Latents `b n c h w` that follow `state` → frames `b t 3 h w` in [−1, 1] and the new state.

        Each latent gives `temporal_patch` frames, but for the very first of a stream, which gives one. Sessions that
        decode together must all be at a stream's start, or none. Raises ShapeError otherwise.
        """
        p = self.config.temporal_patch
        num, picture = latents.shape[1], latents[:, :, : self.config.channels]
        inputs, new_state, first = picture, state, False
        if p > 1:
            first = _uniform(state["started"])
            before = state["previous"][:, None, : self.config.channels].to(latents.dtype)
            inputs = torch.cat([torch.cat([before, picture[:, :-1]], dim=1), picture], dim=2)
            new_state = self.state_after(latents)
        x = rearrange(inputs, "b n c h w -> (b n) c h w").contiguous(memory_format=torch.channels_last)
        x = F.pixel_shuffle(self.decoder(self.from_latents(x) + self.position), 4)
        difference = rearrange(x, "(b n) (p c) h w -> b (n p) c h w", n=num, p=p)
        frames = self.background + _without_trifles(difference.to(torch.promote_types(x.dtype, torch.float32)))
        return (frames[:, p - 1 :] if first else frames), new_state


def with_state_channels(picture: Tensor, state_variables: Tensor) -> Tensor:
    """Latents `b n c h w` with the channels `b n k` after their own, the same at every position."""
    *_, h, w = picture.shape
    return torch.cat([picture, state_variables.to(picture.dtype)[..., None, None].expand(-1, -1, -1, h, w)], dim=2)


def _state_estimator(num_features: int, num_state_channels: int, width: int = 512) -> nn.Sequential:
    """Latents of two frames `b n 2c h w` → tracked channels `b n k`."""
    return nn.Sequential(
        nn.Flatten(start_dim=2),
        nn.Linear(num_features, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, num_state_channels),
    )


def _without_trifles(difference: Tensor) -> Tensor:
    """Soft threshold at `DEAD_ZONE`; gradients pass as if there were none, or a pixel inside could not leave."""
    shrunk = F.softshrink(difference, DEAD_ZONE)
    return difference + (shrunk - difference).detach() if difference.requires_grad else shrunk


def _uniform(started: Tensor) -> bool:
    """True if every session is at its stream's start, False if none is."""
    flags = set(started.tolist())
    if len(flags) > 1:
        raise ShapeError("sessions at a stream's start cannot decode together with others: decode them apart")
    return flags == {False}


def to_float(frames: Tensor) -> Tensor:
    """uint8 `b t h w 3` → float32 `b t 3 h w` in [−1, 1]."""
    return rearrange(frames, "b t h w c -> b t c h w").to(torch.float32) / 127.5 - 1.0


def to_uint8(frames: Tensor) -> Tensor:
    """float `b t 3 h w` in [−1, 1] → uint8 `b t h w 3`."""
    scaled = frames.float().add(1.0).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return rearrange(scaled, "b t c h w -> b t h w c").contiguous()
