"""What is compiled ahead of time: the parts of a pass between two attentions. Owns their inputs, outputs and example
inputs; knows no files and no compiler.

`Begin` computes the first layer's queries and keys, `Between` goes from one layer's attended values to the next layer's
queries and keys, `End` computes the velocity.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from kernels.norm_rope import norm_turn, qk_norm_turn
from world.model.block import Block
from world.model.transformer import Conditioning, Transformer

Turns = tuple[Tensor, ...]
"""Rotations of every token, complex: of queries and keys, `b l 1 1 d/2`; if there is a sink, also of the queries
against it, `b l 1 d/2`."""


class Begin(nn.Module):
    """(x, sigma, actions, *turns) → (tokens, embedding, modulation, *heads): see `Transformer.embed` and `heads_of`."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, x: Tensor, sigma: Tensor, actions: Tensor, *turns: Tensor) -> tuple[Tensor, ...]:
        tokens, embedding, modulation = self.transformer.embed(x, sigma, Conditioning(actions=actions))
        block = blocks_of(self.transformer)[0]
        _, qkv = block.before_attention(tokens, None, block.modulations(modulation))
        return tokens, embedding, modulation, *heads_of(block, qkv, turns)


class Between(nn.Module):
    """(tokens, attended, modulation, *turns) → (tokens, *heads)."""

    def __init__(self, before: Block, after: Block) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, tokens: Tensor, attended: Tensor, modulation: Tensor, *turns: Tensor) -> tuple[Tensor, ...]:
        tokens, residual = self.before.after_attention(tokens, attended, self.before.modulations(modulation), None)
        tokens, qkv = self.after.before_attention(tokens, residual, self.after.modulations(modulation))
        return tokens, *heads_of(self.after, qkv, turns)


class End(nn.Module):
    """(tokens, attended, modulation, embedding, x) → (velocity,)."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self, tokens: Tensor, attended: Tensor, modulation: Tensor, embedding: Tensor, x: Tensor
    ) -> tuple[Tensor, ...]:
        block = blocks_of(self.transformer)[-1]
        tokens, residual = block.after_attention(tokens, attended, block.modulations(modulation), None)
        return (self.transformer.predict(tokens, residual, embedding, x),)


def heads_of(block: Block, qkv: Tensor, turns: Turns) -> tuple[Tensor, ...]:
    """Return queries, keys, values and, with a sink, the queries against it: `b n l d`, each head's rows contiguous."""
    q_weight, k_weight = block.qk_weights()
    q, k = qk_norm_turn(qkv[:, :, :2], q_weight, k_weight, turns[0])
    sinks = [norm_turn(qkv[:, :, 0], q_weight, turn) for turn in turns[1:]]
    return tuple(head.transpose(1, 2).contiguous() for head in (q, k, qkv[:, :, 2], *sinks))


def segment_names(transformer: Transformer) -> tuple[str, ...]:
    """Return the names of the segments that the network has."""
    return ("begin", "between", "end") if len(transformer.blocks) > 1 else ("begin", "end")


@torch.no_grad()
def segments(transformer: Transformer, batch: int, num_chunks: int) -> dict[str, tuple[nn.Module, list[Tensor]]]:
    """Return the network's segments by name, each with inputs of the shapes that it is compiled for."""
    config, frames = transformer.config, num_chunks * transformer.config.chunk_frames
    tokens = frames * config.tokens_per_frame
    x = torch.zeros(batch, frames, config.channels, config.height, config.width)
    sigma, actions = torch.zeros(batch, frames), torch.zeros(batch, frames, config.action_dim)
    turn = torch.ones(batch, tokens, config.head_dim // 2, dtype=torch.complex64)
    turns = [turn[:, :, None, None].clone(), turn[:, :, None].clone()][: 2 if config.sink_frames else 1]
    attended = torch.zeros(batch, tokens, config.num_heads, config.head_dim, dtype=transformer.patch_in.weight.dtype)
    begin, blocks = Begin(transformer), blocks_of(transformer)
    hidden, embedding, modulation, *_ = begin(x, sigma, actions, *turns)
    found: dict[str, tuple[nn.Module, list[Tensor]]] = {
        "begin": (begin, [x, sigma, actions, *turns]),
        "end": (End(transformer), [hidden, attended, modulation, embedding, x]),
    }
    if len(blocks) > 1:
        found["between"] = Between(blocks[0], blocks[1]), [hidden, attended, modulation, *turns]
    return found


def blocks_of(transformer: Transformer) -> list[Block]:
    return [cast(Block, block) for block in transformer.blocks]
