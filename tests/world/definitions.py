"""The definitions of the attention pattern and the sampler, written out without the code under test."""

from __future__ import annotations

import cmath
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from world import Actions
from world.model.config import TransformerConfig
from world.model.patterns import KeyValue, Positions, Rotation
from world.model.transformer import Conditioning, Output, Transformer
from world.rollout.networks import Model


def assert_within(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """No element differs by more than `tolerance`."""
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def sees(config: TransformerConfig, query: int, key: int, *, query_noisy: bool, key_noisy: bool) -> bool:
    """Return whether a frame of chunk `query` sees a frame of chunk `key` in the sequence [clean; noisy]."""
    window, sink = config.window_frames // config.chunk_frames, config.sink_frames // config.chunk_frames
    if key_noisy:
        return query_noisy and query == key
    newest = query - 1 if query_noisy else query
    return key <= newest and (key >= query - window or key < sink)


@cache
def clean_noisy_mask(config: TransformerConfig, num_frames: int) -> Tensor:
    """Return the bool mask `2f 2f`, (query, key)."""
    rows = [
        [
            sees(
                config,
                q % num_frames // config.chunk_frames,
                k % num_frames // config.chunk_frames,
                query_noisy=q >= num_frames,
                key_noisy=k >= num_frames,
            )
            for k in range(2 * num_frames)
        ]
        for q in range(2 * num_frames)
    ]
    return torch.tensor(rows)


@cache
def turns(config: TransformerConfig, frame: int) -> Tensor:
    """Return e^(i·position·base^(−channel/channels)) of every token of a frame, complex128 `tokens d/2`."""
    pairs = config.head_dim // 2
    space = pairs // 3
    split = {"frame": pairs - 2 * space, "row": space, "column": space}
    rows = []
    for row in range(config.height // config.patch):
        for column in range(config.width // config.patch):
            position = {"frame": frame, "row": row, "column": column}
            rows.append(
                [
                    cmath.exp(1j * position[axis] * config.rope_base ** -(channel / num))
                    for axis, num in split.items()
                    for channel in range(num)
                ]
            )
    return torch.tensor(rows, dtype=torch.complex128)


def turned(config: TransformerConfig, x: Tensor, frames: list[int]) -> Tensor:
    """Return queries or keys `b l n d` as complex numbers `b l n d/2`, rotated to the positions of these frames."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return pairs * torch.cat([turns(config, frame) for frame in frames])[None, :, None]


def normed(x: Tensor, weight: Tensor) -> Tensor:
    """Divide queries or keys `b l n d` by their root mean square, per head or (weight `n d`) over all heads."""
    dims = tuple(range(-weight.ndim, 0))
    return x.double() / (x.double().square().mean(dims, keepdim=True) + 1e-6).sqrt() * weight.double()


@dataclass(frozen=True)
class CleanNoisy:
    """The attention pattern of [clean; noisy] written out in float64: one score per query and key, one softmax.

    For a key of the sink, a query's position is at most its offset in the first chunk after sink and window.
    """

    config: TransformerConfig
    num_frames: int

    def positions(self, batch: int, num_frames: int, device: torch.device) -> Positions:
        return Positions(torch.zeros(batch, num_frames, dtype=torch.int64, device=device))

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, KeyValue]:
        config, frames = self.config, [*range(self.num_frames)] * 2
        size, farthest = config.chunk_frames, config.sink_frames + config.window_frames
        v = qkv[:, :, 2]
        q, k = normed(qkv[:, :, 0], rotation.q_weight), normed(qkv[:, :, 1], rotation.k_weight)
        keys = turned(config, k, frames)
        near = turned(config, q, frames)
        bounded = turned(config, q, [min(frame - frame % size, farthest) + frame % size for frame in frames])
        scores = torch.einsum("bqnd,bknd->bnqk", near, keys.conj()).real
        sink_tokens = config.sink_frames * config.tokens_per_frame
        scores[..., :sink_tokens] = torch.einsum("bqnd,bknd->bnqk", bounded, keys[:, :sink_tokens].conj()).real
        mask = clean_noisy_mask(config, self.num_frames)
        n = config.tokens_per_frame
        scores = (scores / config.head_dim**0.5).masked_fill(
            ~mask.repeat_interleave(n, 0).repeat_interleave(n, 1), -torch.inf
        )
        out = torch.einsum("bnqk,bknd->bqnd", scores.softmax(-1), v.double())
        return out.to(v.dtype), (torch.view_as_real(keys).flatten(-2).to(v.dtype), v)


@dataclass(frozen=True)
class Clip:
    """A random clip and two noisy versions of it: latents `b f c h w`, levels `b f`, actions `b f a`, text."""

    clean: Tensor
    noisy: tuple[Tensor, Tensor]
    sigma: tuple[Tensor, Tensor]
    context_sigma: Tensor
    actions: Tensor
    text: Tensor | None

    @property
    def num_frames(self) -> int:
        return self.clean.shape[1]

    def cond(self, rows: slice, *spans: slice) -> Conditioning:
        """Return the conditioning of some batch rows over consecutive spans of frames."""
        actions = torch.cat([self.actions[rows, span] for span in spans], dim=1)
        return Conditioning(actions=actions, text=None if self.text is None else self.text[rows])


def random_clip(config: TransformerConfig, num_chunks: int, *, batch: int = 2, context_sigma: float = 0.0) -> Clip:
    generator = torch.Generator().manual_seed(1)
    frames = num_chunks * config.chunk_frames
    shape = (batch, frames, config.channels, config.height, config.width)

    def level() -> Tensor:
        per_chunk = torch.rand(batch, num_chunks, generator=generator)
        return per_chunk.repeat_interleave(config.chunk_frames, 1)

    return Clip(
        clean=torch.randn(shape, generator=generator),
        noisy=(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)),
        sigma=(level(), level()),
        context_sigma=torch.full((batch, frames), context_sigma),
        actions=(torch.rand(batch, frames, config.action_dim, generator=generator) < 0.5).float(),
        text=torch.randn(batch, config.num_text_tokens, config.text_dim, generator=generator)
        if config.text_dim
        else None,
    )


@torch.no_grad()
def full_pass(network: Transformer, clip: Clip, version: int) -> Output:
    """Run the masked full forward over [clean; noisy] by the definitions above."""
    everything = slice(None)
    return network(  # type: ignore[no-any-return]  # nn.Module's call has no types
        torch.cat([clip.clean, clip.noisy[version]], 1),
        torch.cat([clip.context_sigma, clip.sigma[version]], 1),
        clip.cond(everything, everything, everything),
        pattern=CleanNoisy(network.config, clip.num_frames),
    )


def random_actions(world: Model, batch: int, seed: int) -> Actions:
    """Return one chunk of random actions, frame by frame."""
    generator = torch.Generator().manual_seed(seed)
    frames = world.chunk_pixel_frames
    buttons = torch.rand(batch, frames, len(world.card.buttons), generator=generator) < 0.5
    return Actions(buttons, torch.rand(batch, frames, len(world.card.axes), generator=generator) * 2 - 1)


def context(world: Model, seed: int, num_frames: int | None = None) -> tuple[Tensor, Actions]:
    """Return a random start of one session: frames `1 t h w 3`, actions `1 t`."""
    generator = torch.Generator().manual_seed(seed)
    num_frames = num_frames or world.context_pixel_frames
    shape = (1, num_frames, world.card.height, world.card.width, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    buttons = torch.rand(1, num_frames, len(world.card.buttons), generator=generator) < 0.5
    return frames, Actions(buttons, torch.rand(1, num_frames, len(world.card.axes), generator=generator) * 2 - 1)
