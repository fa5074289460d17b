"""The protocol of text encoders. Owns the interface; knows no tokenizer and no network."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class TextEncoder(Protocol):
    """Turns a prompt into the embeddings that a transformer's cross-attention takes.

    name: its name in `world.text.TEXT_ENCODERS`.
    """

    name: str

    def encode(self, text: str) -> Tensor:
        """Return token embeddings `l text_dim`, float32, with 1 ≤ l ≤ `TransformerConfig.num_text_tokens`; longer
        prompts are cut."""
        ...
