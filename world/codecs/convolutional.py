"""The convolutional codec of the shipped worlds. Owns its config, its networks and its latent statistics."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from world.codecs.codec import Codec, CodecState
from world.codecs.state_channels import (
    StateVariable,
    advance_state_channels,
    num_channels,
    state_variables_from_json,
)
from world.errors import ShapeError
from world.format_1 import fields_from_disk, fields_to_disk
from world.numbers import checked, checked_count

DEAD_ZONE = 1 / 127.5
"""One grey level of frames in [−1, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvolutionalCodecConfig:
    """A convolutional codec: `temporal_patch` p maps 1 + p·k pixel frames to 1 + k latents (p = 1: one to one).

    One latent is `channels × height/16 × width/16`; `widths` are the feature counts at 1/4, 1/8 and 1/16.
    state_variables: numbers that a picture does not show, such as a position; they add channels to the latent that
    have the same value at every position.
    """

    height: int
    width: int
    channels: int = 8
    widths: tuple[int, int, int] = (48, 96, 160)
    temporal_patch: int = 1
    bound: float = 4.0
    state_variables: tuple[StateVariable, ...] = ()

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels", "temporal_patch"):
            checked_count(getattr(self, name), name)
        for width in self.widths:
            checked_count(width, "widths")
        checked(self.bound, "bound", 1e-3)
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


class ConvolutionalCodec(Codec):
    """Convolutional codec with a smooth, unit-variance latent space.

    Latents are centred per position (a still background is all zeros), scaled per channel and softly bounded, so that
    no small bright object dominates. Frames are decoded as `background` plus a difference, which is set to 0 unless it
    exceeds one grey level, so that static regions decode without flicker. With `temporal_patch` p > 1 the encoder sees
    p frames at once (the first frame counts p times) and the decoder also sees the latent before; that latent is the
    state.

    At a stream's start the state channels are estimated by `state_estimator` from a picture and the one before it;
    afterwards the transformer predicts them like all others and `advance_state_channels` corrects them. The decoder
    does not see them.
    """

    config: ConvolutionalCodecConfig

    def __init__(self, config: ConvolutionalCodecConfig) -> None:
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

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        known = fields_from_disk(fields)
        state_variables = state_variables_from_json(known.get("state_variables", ()))
        changes = {"widths": tuple(known["widths"]), "state_variables": state_variables}
        return cls(ConvolutionalCodecConfig(**{**known, **changes}))

    def to_json(self) -> dict[str, Any]:
        return fields_to_disk(asdict(self.config))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.config.latent_shape

    @property
    def frame_size(self) -> tuple[int, int]:
        return self.config.height, self.config.width

    @property
    def state_variables(self) -> tuple[StateVariable, ...]:
        return self.config.state_variables

    @property
    def temporal_patch(self) -> int:
        return self.config.temporal_patch

    @property
    def warm_up_latents(self) -> int:
        return 0 if self.config.temporal_patch == 1 else 1

    def channels_last(self) -> Self:
        """Lay out the convolutions' weights for CPUs, where that is faster."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        return self

    def initial_state(self, batch: int) -> CodecState:
        if self.config.temporal_patch == 1:
            return {}
        zeros = self.latent_mean.new_zeros(batch, *self.config.latent_shape)
        return {"previous": zeros, "started": torch.zeros(batch, dtype=torch.bool, device=zeros.device)}

    def num_latents(self, num_frames: int) -> int:
        """Return the number of latents of a clip of `num_frames` pixel frames that starts a stream. Raises ShapeError
        unless that is 1 + p·k."""
        p = self.config.temporal_patch
        if num_frames < 1 or (num_frames - 1) % p:
            raise ShapeError(f"{num_frames} frames: a clip needs 1 + {p}·k frames")
        return 1 + (num_frames - 1) // p

    def raw_features(self, frames: Tensor) -> Tensor:
        """Return unnormalised latents of a clip that starts a stream: `b t 3 h w` → `b n c h/16 w/16`."""
        p = self.config.temporal_patch
        self.num_latents(frames.shape[1])
        expected = (3, self.config.height, self.config.width)
        if tuple(frames.shape[2:]) != expected:
            raise ShapeError(f"frames are {tuple(frames.shape[2:])}, this codec takes {expected}")
        return self._features(torch.cat([frames[:, :1].expand(-1, p - 1, -1, -1, -1), frames], dim=1))

    def _features(self, frames: Tensor) -> Tensor:
        """Return unnormalised latents `b n c h/16 w/16` of any frames `b n·p 3 h w`."""
        x = rearrange(frames, "b (n p) c h w -> (b n) (p c) h w", p=self.config.temporal_patch)
        x = F.pixel_unshuffle(x, 4).contiguous(memory_format=torch.channels_last)
        raw: Tensor = self.encoder(x)
        return rearrange(raw, "(b n) c h w -> b n c h w", b=frames.shape[0])

    def normalise(self, raw: Tensor) -> Tensor:
        """Turn raw features into latents: centred per position, scaled per channel, softly bounded."""
        return self.soft_bound((raw - self.latent_mean) / self.latent_std)

    def soft_bound(self, x: Tensor) -> Tensor:
        """Return bound·tanh(x / bound)."""
        return self.config.bound * torch.tanh(x / self.config.bound)

    def encode(self, frames: Tensor) -> tuple[Tensor, CodecState]:
        latents = self.with_estimated_state(self.encode_picture(frames))
        return latents, self.state_after(latents)

    def encoding(self, frames: Tensor, num_latents: int) -> Generator[None, None, tuple[Tensor, CodecState]]:
        p, first = self.config.temporal_patch, 1 + self.config.temporal_patch * (num_latents - 1)
        parts = [self.encode_picture(frames[:, :first])]
        for following in frames[:, first:].split(num_latents * p, dim=1) if frames.shape[1] > first else ():
            yield
            parts.append(self.normalise(self._features(following)))
        latents = self.with_estimated_state(torch.cat(parts, dim=1))
        return latents, self.state_after(latents)

    def encode_picture(self, frames: Tensor) -> Tensor:
        """Encode without state channels and without returning a state."""
        return self.normalise(self.raw_features(frames))

    def state_after(self, latents: Tensor) -> CodecState:
        if self.config.temporal_patch == 1:
            return {}
        started = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        return {"previous": latents[:, -1], "started": started}

    def with_estimated_state(self, latents: Tensor) -> Tensor:
        """Return latents `b n c h w` of a stream from its start with their state channels, if the config has any, as
        estimated from the picture's channels."""
        picture = latents[:, :, : self.config.channels]
        if self.state_estimator is None:
            return picture
        before = torch.cat([picture[:, :1], picture[:, :-1]], dim=1)
        return with_state_channels(picture, self.state_estimator(torch.cat([before, picture], dim=2)))

    def advance_state_channels(self, before: Tensor, latents: Tensor) -> Tensor:
        """Make the state channels of predicted latents equal at all positions and let them follow from those before
        (see `world.codecs.state_channels`)."""
        if not self.config.state_variables:
            return latents
        num = self.config.channels
        states = [before[:, num:].mean(dim=(2, 3))]
        for frame in latents[:, :, num:].mean(dim=(3, 4)).unbind(1):
            states.append(advance_state_channels(self.config.state_variables, states[-1], frame))
        return with_state_channels(latents[:, :, :num], torch.stack(states[1:], dim=1))

    def decode(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Decode latents `b n c h w` that follow `state` → frames `b t 3 h w` in [−1, 1] and the new state.

        Each latent gives `temporal_patch` frames, except a stream's first, which gives one. Raises ShapeError if only
        some sessions of the batch are at a stream's start.
        """
        p = self.config.temporal_patch
        num, picture = latents.shape[1], latents[:, :, : self.config.channels]
        inputs, new_state, first = picture, state, False
        if p > 1:
            first = _all_at_start(state["started"])
            before = state["previous"][:, None, : self.config.channels].to(latents.dtype)
            inputs = torch.cat([torch.cat([before, picture[:, :-1]], dim=1), picture], dim=2)
            new_state = self.state_after(latents)
        x = rearrange(inputs, "b n c h w -> (b n) c h w").contiguous(memory_format=torch.channels_last)
        x = F.pixel_shuffle(self.decoder(self.from_latents(x) + self.position), 4)
        difference = rearrange(x, "(b n) (p c) h w -> b (n p) c h w", n=num, p=p)
        frames = self.background + _without_dead_zone(difference.to(torch.promote_types(x.dtype, torch.float32)))
        return (frames[:, p - 1 :] if first else frames), new_state


def with_state_channels(picture: Tensor, state_channels: Tensor) -> Tensor:
    """Append state channels `b n k` to the picture's channels `b n c h w`, the same at every position."""
    *_, h, w = picture.shape
    return torch.cat([picture, state_channels.to(picture.dtype)[..., None, None].expand(-1, -1, -1, h, w)], dim=2)


def _state_estimator(num_features: int, num_state_channels: int, width: int = 512) -> nn.Sequential:
    """Build the network from latents of two frames `b n 2c h w` to state channels `b n k`."""
    return nn.Sequential(
        nn.Flatten(start_dim=2),
        nn.Linear(num_features, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, num_state_channels),
    )


def _without_dead_zone(difference: Tensor) -> Tensor:
    """Soft-threshold at `DEAD_ZONE`. Gradients pass as if there were no threshold; otherwise a pixel inside the dead
    zone could never leave it."""
    shrunk = F.softshrink(difference, DEAD_ZONE)
    return difference + (shrunk - difference).detach() if difference.requires_grad else shrunk


def _all_at_start(started: Tensor) -> bool:
    """Return True if every session is at its stream's start, False if none is. Raises ShapeError if some are."""
    flags = set(started.tolist())
    if len(flags) > 1:
        raise ShapeError(
            "sessions at a stream's start cannot be decoded together with others: decode them in a separate call"
        )
    return flags == {False}
