"""One transformer block. Owns its weights and the order of its operations; the attention pattern is an argument.

The block is Wan's (arXiv:2503.20314): each block adds a learned table to six modulations shared by all blocks;
RMS-normalised queries and keys; rotary positions over frame, row and column; optional cross-attention to text.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kernels.gelu import gelu
from kernels.norm_modulate import norm_modulate
from world.model.config import TransformerConfig
from world.model.cross_attention import CrossAttention, LayerText
from world.model.patterns import AttentionPattern, KeyValue, Rotation
from world.model.rotary import Angles

Residual = tuple[Tensor, Tensor]
"""A layer's output that has not been added to the residual stream yet: y `b l dim`, and the gate `b f dim` of each
frame. The next norm adds it; where kernels are fused, that is one pass over memory."""


class Block(nn.Module):
    """Self-attention, optional cross-attention, feed-forward; modulated per frame."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.full_qk_norm = config.full_qk_norm
        self.qkv = nn.Linear(dim, 3 * dim)
        self.norm_q = nn.RMSNorm(dim if config.full_qk_norm else config.head_dim, eps=1e-6)
        self.norm_k = nn.RMSNorm(dim if config.full_qk_norm else config.head_dim, eps=1e-6)
        self.out = nn.Linear(dim, dim)
        self.ffn_in = nn.Linear(dim, config.ffn_dim)
        self.ffn_out = nn.Linear(config.ffn_dim, dim)
        self.modulation = nn.Parameter(torch.randn(6, dim) / math.sqrt(dim))
        self.cross = CrossAttention(config) if config.text_dim else None

    def forward(
        self,
        x: Tensor,
        residual: Residual | None,
        modulation: Tensor,
        angles: tuple[Angles, Angles | None],
        layer: int,
        pattern: AttentionPattern,
        text: LayerText | None,
    ) -> tuple[Tensor, Residual, KeyValue | None]:
        parts = self.modulations(modulation)
        x, qkv = self.before_attention(x, residual, parts)
        attended, kv = pattern.attend(layer, qkv, self.rotation(angles))
        x, residual = self.after_attention(x, attended, parts, text)
        return x, residual, kv

    def modulations(self, modulation: Tensor) -> tuple[Tensor, ...]:
        """Return shift, scale and gate of attention, then of the feed-forward: `b f dim` each, from `b f 6 dim`."""
        return (modulation + self.modulation).unbind(2)

    def before_attention(
        self, x: Tensor, residual: Residual | None, parts: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return x with the residual added, and raw queries, keys and values `b l 3 n d`."""
        shift, scale, *_ = parts
        x, h = add_and_norm(x, residual, scale, shift)
        return x, self.qkv(h).unflatten(-1, (3, self.num_heads, -1))

    def after_attention(
        self, x: Tensor, attended: Tensor, parts: tuple[Tensor, ...], text: LayerText | None
    ) -> tuple[Tensor, Residual]:
        """Run the rest of the block on attended values `b l n d`: return x and the feed-forward's residual."""
        _, _, gate1, shift2, scale2, gate2 = parts
        y, gate = self.out(attended.flatten(2)), gate1
        if self.cross is not None and text is not None:
            norm = self.cross.norm
            x, h = norm_modulate(x, None, None, y=y, gate=gate, weight=norm.weight, bias=norm.bias, eps=norm.eps)
            x, h = norm_modulate(x, scale2, shift2, y=self.cross(h, text))
        else:
            x, h = norm_modulate(x, scale2, shift2, y=y, gate=gate)
        return x, (self.ffn_out(gelu(self.ffn_in(h))), gate2)

    def rotation(self, angles: tuple[Angles, Angles | None]) -> Rotation:
        return Rotation(*angles, *self.qk_weights())

    def qk_weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights of the norms of queries and keys: `d`, or `n d` if they span all heads."""
        q, k = self.norm_q.weight, self.norm_k.weight
        if self.full_qk_norm:
            q, k = q.unflatten(0, (self.num_heads, -1)), k.unflatten(0, (self.num_heads, -1))
        return q, k


def add_and_norm(
    x: Tensor, residual: Residual | None, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return x with the residual added, and its modulated norm."""
    y, gate = residual or (None, None)
    return norm_modulate(x, scale, shift, y=y, gate=gate)
