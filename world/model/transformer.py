"""The transformer that is teacher, critic and student. Owns embeddings, blocks and head; an `AttentionPattern` decides
which frame attends to which.

As in Wan (arXiv:2503.20314), a shared projection of the noise level gives six modulations for all blocks. Noise level
and action are per frame, so plain denoising, diffusion forcing and teacher forcing are one model. The action's
embedding is added to the noise level's (its last layer starts at zero).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from world.errors import ShapeError
from world.model.block import Block, Residual, add_and_norm
from world.model.config import TransformerConfig
from world.model.cross_attention import LayerText, TextKeys
from world.model.patterns import AttentionPattern, Bidirectional, KeyValue
from world.model.rotary import RotaryAngles


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The conditions of a forward pass besides the noise level.

    actions: `b f a`, one vector per latent frame (see `TransformerConfig.action_dim`), or None to drop actions.
    text: `b l text_dim` token embeddings, for configs with text, or their keys and values (`Transformer.text_keys`).
    labels: int64 `b`, classes for networks of images that know classes; a `Transformer` does not.
    """

    actions: Tensor | None = None
    text: Tensor | TextKeys | None = None
    labels: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a forward pass.

    prediction: velocity `b f c h w`. kv: per layer, keys (rotated) and values `b l n d`; empty if the pattern stores
    them. features: hidden states `b l dim` after the requested layers.
    """

    prediction: Tensor
    kv: list[KeyValue]
    features: dict[int, Tensor]


class Transformer(nn.Module):
    """`network(x, sigma, cond, *, sigma_next=None, pattern=None, features=()) -> Output`.

    x: noisy latents `b f c h w`. sigma: noise level in [0, 1], `b f`. pattern: which frames attend to which (default:
    all to all) and where their keys and values are stored. Predicts the velocity noise − x0. sigma_next: the level that
    a step leads to, `b f`, for configs with `flow_map` (default: sigma, the velocity at this level). Its embedding
    starts at zero, so that a teacher's weights are a flow map's first ones. Raises ShapeError on latents of another
    size, and for sigma_next without `flow_map`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.forward_calls = 0
        self.patch_in = nn.Linear(config.patch_dim, dim)
        self.rotary = RotaryAngles(config)
        tokens = config.tokens_per_frame
        self.positions = nn.Parameter(torch.randn(tokens, dim) * 0.02) if config.learned_positions else None
        self.noise_embedding = nn.Sequential(nn.Linear(config.frequency_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.action_embedding = _zero_last(config.action_dim, dim) if config.action_dim else None
        self.interval_embedding = _zero_last(config.frequency_dim, dim) if config.flow_map else None
        self.text_embedding = (
            nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim))
            if config.text_dim
            else None
        )
        self.modulation = nn.Linear(dim, 6 * dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head_modulation = nn.Parameter(torch.randn(2, dim) / math.sqrt(dim))
        self.head = nn.Linear(dim, config.patch_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        sigma_next: Tensor | None = None,
        pattern: AttentionPattern | None = None,
        features: tuple[int, ...] = (),
    ) -> Output:
        self._check(x, sigma, cond, sigma_next)
        if not torch.compiler.is_compiling():  # a graph would be recompiled for every count
            self.forward_calls += 1
        pattern = pattern or Bidirectional()
        positions = pattern.positions(x.shape[0], x.shape[1], x.device)
        angles = self.rotary(positions.frames), None if positions.sink is None else self.rotary(positions.sink)
        tokens, embedding, modulation = self.embed(x, sigma, cond, sigma_next)
        texts = self._texts(cond.text)
        kv, hidden = [], {}
        residual: Residual | None = None
        for layer, block in enumerate(self.blocks):
            tokens, residual, layer_kv = block(tokens, residual, modulation, angles, layer, pattern, texts[layer])
            if layer_kv is not None:
                kv.append(layer_kv)
            if layer in features:
                hidden[layer] = add_and_norm(tokens, residual, None, None)[0]
        return Output(self.predict(tokens, residual, embedding, x), kv, hidden)

    @property
    def num_layers(self) -> int:
        """The number of layers that have features."""
        return len(self.blocks)

    def text_keys(self, text: Tensor) -> list[KeyValue]:
        """Return each layer's keys and values `b l n d` of token embeddings `b l text_dim`, for `TextKeys`. Raises
        ShapeError if the config has no text."""
        if self.text_embedding is None:
            raise ShapeError("text: this config has no cross-attention (text_dim is 0)")
        embedded = self.text_embedding(text.to(self.patch_in.weight))
        return [cast(Block, block).cross.keys(embedded) for block in self.blocks]  # type: ignore[union-attr]  # has text

    def _texts(self, text: Tensor | TextKeys | None) -> Sequence[LayerText | None]:
        """Return what each layer's cross-attention takes."""
        if isinstance(text, TextKeys):
            return text.layers()
        embedded = None
        if self.text_embedding is not None and text is not None:
            embedded = self.text_embedding(text.to(self.patch_in.weight))
        return [embedded] * len(self.blocks)

    def embed(
        self, x: Tensor, sigma: Tensor, cond: Conditioning, sigma_next: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens `b l dim`, each frame's embedding `b f dim`, and the blocks' shared modulation `b f 6 dim`."""
        embedding = self._frame_embedding(sigma, cond, sigma_next)
        modulation = self.modulation(F.silu(embedding)).unflatten(-1, (6, -1))
        return self._patchify(x.to(self.patch_in.weight.dtype)), embedding, modulation

    def predict(self, tokens: Tensor, residual: Residual | None, embedding: Tensor, like: Tensor) -> Tensor:
        """Return the velocity `b f c h w`, in the layout of `like`, from the last block's output."""
        shift, scale = (embedding[:, :, None] + self.head_modulation).unbind(2)
        _, h = add_and_norm(tokens, residual, scale, shift)
        return self._unpatchify(self.head(h), like)

    def _check(self, x: Tensor, sigma: Tensor, cond: Conditioning, sigma_next: Tensor | None) -> None:
        expected = (self.config.channels, self.config.height, self.config.width)
        if x.ndim != 5 or tuple(x.shape[2:]) != expected:
            raise ShapeError(f"latents are {tuple(x.shape)}, expected (b, f, {', '.join(map(str, expected))})")
        if sigma.shape != x.shape[:2]:
            raise ShapeError(f"sigma is {tuple(sigma.shape)}, expected one level per frame {tuple(x.shape[:2])}")
        if cond.labels is not None:
            raise ShapeError("labels: a Transformer has no classes; give text, or actions")
        if sigma_next is not None and not self.config.flow_map:
            raise ShapeError("sigma_next: this network has no input for it; set flow_map=True in its config")
        if sigma_next is not None and sigma_next.shape != sigma.shape:
            raise ShapeError(f"sigma_next is {tuple(sigma_next.shape)}, expected that of sigma {tuple(sigma.shape)}")
        if cond.actions is not None and cond.actions.shape != (*x.shape[:2], self.config.action_dim):
            raise ShapeError(
                f"actions are {tuple(cond.actions.shape)}, expected {(*x.shape[:2], self.config.action_dim)}"
            )

    def _frame_embedding(self, sigma: Tensor, cond: Conditioning, sigma_next: Tensor | None) -> Tensor:
        dtype = self.patch_in.weight.dtype
        embedding: Tensor = self.noise_embedding(sinusoid(sigma, self.config.frequency_dim).to(dtype))
        if self.action_embedding is not None and cond.actions is not None:
            embedding = embedding + self.action_embedding(cond.actions.to(dtype))
        if self.interval_embedding is not None:
            interval = torch.zeros_like(sigma) if sigma_next is None else sigma - sigma_next
            embedding = embedding + self.interval_embedding(sinusoid(interval, self.config.frequency_dim).to(dtype))
        return embedding

    def _patchify(self, x: Tensor) -> Tensor:
        p = self.config.patch
        tokens: Tensor = self.patch_in(rearrange(x, "b f c (h p) (w q) -> b f (h w) (c p q)", p=p, q=p))
        if self.positions is not None:
            tokens = tokens + self.positions
        return tokens.flatten(1, 2)  # b (f n) dim

    def _unpatchify(self, tokens: Tensor, like: Tensor) -> Tensor:
        p, rows = self.config.patch, self.config.height // self.config.patch
        return rearrange(tokens, "b (f h w) (c p q) -> b f c (h p) (w q)", f=like.shape[1], h=rows, p=p, q=p).to(
            torch.promote_types(like.dtype, tokens.dtype)
        )


def sinusoid(sigma: Tensor, dim: int) -> Tensor:
    """Return sinusoidal features of 1000·sigma, cosines first (as in DDPM, arXiv:2006.11239): `… dim`, float32 (float64
    for float64)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=sigma.device, dtype=torch.float64) / half)
    angle = 1000.0 * sigma.double()[..., None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1).to(torch.promote_types(sigma.dtype, torch.float32))


def _zero_last(dim_in: int, dim: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(dim_in, dim), nn.SiLU(), nn.Linear(dim, dim))
    nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]  # Sequential indexing loses the layer's type
    nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
    return layers
