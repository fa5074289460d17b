"""The protocol every codec implements. Owns the interface between frames and latents; knows no particular codec.

A codec maps pixel frames `b t 3 h w` in [−1, 1] to normalised latents `b n c h w` and back. Decoding may depend on the
latents before: what it needs of them is the codec's state, one dict of tensors per session (empty for a per-frame
codec), which every call returns and the next call takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import asdict
from typing import Any, Self

from torch import Tensor, nn

from world.codecs.state_channels import StateVariable

CodecState = dict[str, Tensor]
"""Tensors whose first dimension is the session; empty if the codec needs no history. Saved with the session."""


class Codec(nn.Module, ABC):
    """What a rollout and a server need of a codec. A subclass also needs an entry in `world.codecs.CODECS`.

    config: a frozen dataclass. Together with the weights it identifies the latent space: saved sessions are only
    restored into a world whose codec has the same config and weights.
    """

    config: Any

    @classmethod
    @abstractmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Build the codec, with initial weights, from what `to_json` returned. Raises KeyError or TypeError on a
        missing or unknown field."""

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON types."""
        return asdict(self.config)

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """`c h w` of one latent; the transformer's channels, height and width."""

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width of its frames; None if it takes several sizes."""
        return None

    @property
    def state_variables(self) -> tuple[StateVariable, ...]:
        """The numbers that the latent's last channels encode, if any."""
        return ()

    @property
    def temporal_patch(self) -> int:
        """Pixel frames of every latent but a stream's first."""
        return 1

    @property
    def first_frames(self) -> int:
        """Pixel frames of a stream's first latent, at most `temporal_patch`."""
        return 1

    @property
    def warm_up_latents(self) -> int:
        """How many latents `state_after` needs for an exact state; 0 if there is no state."""
        return 0

    @abstractmethod
    def encode(self, frames: Tensor) -> tuple[Tensor, CodecState]:
        """Encode a clip from a stream's start: frames `b t 3 h w` in [−1, 1] → latents `b n c h w`, and the state for
        decoding what follows them. t is `first_frames + temporal_patch·(n − 1)`; raises ShapeError otherwise."""

    def encoding(self, frames: Tensor, num_latents: int) -> Generator[None, None, tuple[Tensor, CodecState]]:
        """Do what `encode` does in parts of `num_latents` latents, so that nobody waits long. A codec that cannot be
        divided does it in one part."""
        yield from ()
        return self.encode(frames)

    @abstractmethod
    def decode(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Decode latents `b n c h w` that follow `state` → frames `b t 3 h w` in [−1, 1] and the new state.

        Must not change `state`. All sessions of the batch are at a stream's start, or none is; raises ShapeError
        otherwise.
        """

    def initial_state(self, batch: int) -> CodecState:
        """Return the state before a stream's first latent."""
        return {}

    def state_after(self, latents: Tensor) -> CodecState:
        """Return the state after a stream that ends with latents `b n c h w`: exact if n is at least
        `warm_up_latents`, or if they are the whole stream."""
        return {}

    def advance_state_channels(self, before: Tensor, latents: Tensor) -> Tensor:
        """Return predicted latents `b n c h w` that follow `before` `b c h w` as a rollout keeps them. Codecs with
        state channels correct those here (see `world.codecs.state_channels`)."""
        return latents

    def channels_last(self) -> Self:
        """Lay out the weights for inference on this device, where another layout is faster."""
        return self
