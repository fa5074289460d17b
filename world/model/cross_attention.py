"""Cross-attention to text. Owns its weights and the form in which text is kept between passes; knows no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kernels.attention import attention
from kernels.dispatch import BY_RULE, KernelChoice
from world.model.config import TransformerConfig
from world.model.patterns import KeyValue


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Text as keys and values of the layers' cross-attention. They are the same in every pass, so a rollout computes
    them once.

    kv: per layer, keys and values `b l n d`. has_text: `b`, 1 for rows with a text, 0 for rows without.
    kernel_choice: which kernel attends to them.
    """

    kv: Sequence[KeyValue]
    has_text: Tensor
    kernel_choice: KernelChoice = BY_RULE

    def layers(self) -> list[LayerKeys]:
        """Return what each layer's cross-attention takes."""
        return [LayerKeys(kv, self.has_text, self.kernel_choice) for kv in self.kv]


@dataclass(frozen=True, slots=True)
class LayerKeys:
    """One layer's part of `TextKeys`."""

    kv: KeyValue
    has_text: Tensor
    kernel_choice: KernelChoice


LayerText = Tensor | LayerKeys
"""Text as a layer takes it: its embedding `b l dim`, or keys and values."""


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
        q = self._heads(self.norm_q(self.q(x)))
        if isinstance(text, Tensor):
            y: Tensor = self.out(attention(q, *self.keys(text)).flatten(2))
            return y
        y = self.out(attention(q, *text.kv, choice=text.kernel_choice).flatten(2))
        return y * text.has_text.to(y)[:, None, None]

    def keys(self, text: Tensor) -> KeyValue:
        """Return keys and values `b l n d` of embedded text `b l dim`."""
        return self._heads(self.norm_k(self.k(text))), self._heads(self.v(text))

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads
