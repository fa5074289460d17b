"""Attention to text. Owns its weights, and the form in which text is kept between passes; knows no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kernels.attention import attention
from world.model.config import TransformerConfig
from world.model.patterns import KeyValue

LayerText = Tensor | tuple[KeyValue, Tensor]
"""What a layer is told of the text: its embedding `b l dim`; or keys and values, and who has any (see `TextKeys`)."""


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Text as the layers' cross-attention meets it: the same in every pass, so a rollout makes it once.

    kv: of each layer, keys and values `b l n d`. given: `b`, 1 for those that have a text, 0 for those that have none.
    """

    kv: Sequence[KeyValue]
    given: Tensor


class CrossAttention(nn.Module):
    """Attention of normalised tokens to text tokens, with full-width RMS norm of queries and keys as in Wan."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, text: LayerText) -> Tensor:
        kv, given = (self.keys(text), None) if isinstance(text, Tensor) else text
        q = self._heads(self.norm_q(self.q(x)))
        y: Tensor = self.out(attention(q, *kv).flatten(2))
        return y if given is None else y * given.to(y)[:, None, None]

    def keys(self, text: Tensor) -> KeyValue:
        """Keys and values of embedded text `b l dim`: `b l n d` each."""
        return self._heads(self.norm_k(self.k(text))), self._heads(self.v(text))

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads
