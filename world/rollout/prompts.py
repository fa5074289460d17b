"""The texts of a rollout's slots as keys and values for cross-attention. Computes them once per text instead of once
per pass and owns the static buffers they are in, so that captured passes can read them. Knows no tokenizer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from world.errors import ShapeError
from world.model.cross_attention import TextKeys
from world.rollout.networks import Model


class Prompts:
    """Texts of `num_slots` slots of a model; none at first, and never any in a world without text."""

    def __init__(self, model: Model, num_slots: int) -> None:
        self.model, self.config = model, model.transformer.config
        config = self.config
        shape = (config.num_layers, num_slots, config.num_text_tokens, config.num_heads, config.head_dim)
        self._k = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self._v = torch.zeros_like(self._k)
        self._has_text = torch.zeros(num_slots, device=model.device)
        self._with_text: set[int] = set()

    def check(self, text: Tensor | None) -> None:
        """Raise ShapeError unless text is None or token embeddings `l text_dim` that fit this world."""
        config = self.config
        if text is None:
            return
        if not config.text_dim:
            raise ShapeError(f"{self.model.card.name} takes no text: leave the text out")
        if text.ndim != 2 or not 0 < len(text) <= config.num_text_tokens or text.shape[1] != config.text_dim:
            raise ShapeError(
                f"text is {tuple(text.shape)}, expected up to {config.num_text_tokens} tokens of {config.text_dim}"
            )

    def keys(self, text: Tensor | None) -> TextKeys | None:
        """Return the keys and values of one session's text, token embeddings `l text_dim`, padded with zeros as in Wan
        (arXiv:2503.20314); None without a text. Changes nothing."""
        self.check(text)
        if text is None:
            return None
        padded = F.pad(text.to(self.model.device), (0, 0, 0, self.config.num_text_tokens - len(text)))
        kv = self.model.transformer.text_keys(padded[None])
        return TextKeys(kv, torch.ones(1, device=self.model.device), self.model.kernel_choice)

    def put(self, slot: int, keys: TextKeys | None) -> None:
        """Set a slot's text to what `keys` returned."""
        self._with_text.discard(slot)
        self._has_text[slot] = keys is not None
        if keys is not None:
            self._with_text.add(slot)
            for layer, (k, v) in enumerate(keys.kv):
                self._k[layer, slot], self._v[layer, slot] = k[0], v[0]

    def of(self, slots: list[int]) -> TextKeys | None:
        """Return the texts of these slots, or None if none of them has one."""
        if self._with_text.isdisjoint(slots):
            return None
        return self.at(torch.tensor(slots, device=self.model.device))

    def at(self, slots: Tensor) -> TextKeys | None:
        """Return the texts of slots (int64 `b`, not read on the host); None in a world without text."""
        if not self.config.text_dim:
            return None
        kv = [(k[slots], v[slots]) for k, v in zip(self._k.unbind(0), self._v.unbind(0), strict=True)]
        return TextKeys(kv, self._has_text[slots], self.model.kernel_choice)
