"""A rollout's forward passes: their inputs, and how they run in static buffers. Owns the buffers and, on a GPU, the
captured graphs.

Everything that differs from one pass to the next, including noise levels, actions, slots and ring positions, is copied
into fixed tensors. So a pass of a given number of rows and chunks is captured once as a CUDA graph and replayed for any
sessions. On a CPU the same buffers are used without a graph.

A pass with a commit must not run twice on one arena: the clean chunk sees the oldest chunk, which the noisy one then
overwrites. So the arena is restored after the warm-up runs before a capture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from world.model.transformer import Conditioning, Transformer
from world.rollout.cache import Arena, ArenaPattern
from world.rollout.networks import Model
from world.rollout.prompts import Prompts
from world.rollout.timeline import Slot, stacked

WARM_UPS = 3
"""Runs before a capture, during which libraries choose their algorithms and allocate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassInput:
    """One pass's tensors. x: clean chunks before noisy ones, `b f c h w`; sigma `b f`; actions `b f a`; slots,
    first_chunk: int64 `b`, see `ArenaPattern`."""

    x: Tensor
    sigma: Tensor
    actions: Tensor
    slots: Tensor
    first_chunk: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, self.sigma, self.actions, self.slots, self.first_chunk


def pass_input(
    model: Model, stage: int, x: Tensor, vectors: Tensor, slots: list[int], states: list[Slot]
) -> tuple[PassInput, int]:
    """Return a denoising stage's input and its number of chunks. x `b f c h w` and vectors `b f a` are of the noisy
    chunks; in the first stage the chunks before are put in front of them, to be committed."""
    chunk, device = model.transformer.config.chunk_frames, model.device
    first_chunk = torch.tensor([state.next_chunk for state in states], device=device)
    levels, num_chunks = [model.levels[stage]] * chunk, 1
    if stage == 0:
        uncommitted = [stacked(list(state.recent)[-chunk:]) for state in states]
        clean, clean_vectors = (torch.stack(parts) for parts in zip(*uncommitted, strict=True))
        x, vectors = torch.cat([clean, x], 1), torch.cat([clean_vectors, vectors], 1)
        levels, num_chunks, first_chunk = [model.context_sigma] * chunk + levels, 2, first_chunk - 1
    sigma = torch.tensor(levels, device=device).repeat(len(slots), 1)
    slot_index = torch.tensor(slots, device=device)
    return PassInput(x=x, sigma=sigma, actions=vectors, slots=slot_index, first_chunk=first_chunk), num_chunks


class StaticPass:
    """The pass for inputs of one shape, in its own buffers."""

    def __init__(
        self, transformer: Transformer, arena: Arena, prompts: Prompts, like: PassInput, num_chunks: int
    ) -> None:
        self.transformer, self.arena, self.prompts, self.num_chunks = transformer, arena, prompts, num_chunks
        device = arena.k.device
        self.input = PassInput(
            x=torch.empty_like(like.x, device=device),
            sigma=torch.empty_like(like.sigma, device=device),
            actions=torch.empty_like(like.actions, device=device),
            slots=torch.empty_like(like.slots, device=device),
            first_chunk=torch.empty_like(like.first_chunk, device=device),
        )
        self.graph: torch.cuda.CUDAGraph | None = None
        self.velocity: Tensor | None = None

    def __call__(self, inputs: PassInput) -> Tensor:
        """Return the velocity `b f c h w`, float32. The next call overwrites it."""
        for buffer, new in zip(self.input.tensors(), inputs.tensors(), strict=True):
            buffer.copy_(new, non_blocking=True)
        if self.arena.k.device.type != "cuda":
            self.velocity = self._forward()
        elif self.graph is None:
            self._capture()
        else:
            self.graph.replay()
        assert self.velocity is not None
        return self.velocity

    def _capture(self) -> None:
        """Run on the inputs and capture the graph."""
        warm_up_stream = torch.cuda.Stream()
        warm_up_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up_stream):
            self.warm_up()
        torch.cuda.current_stream().wait_stream(warm_up_stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.velocity = self._forward()
        self.graph.replay()

    def warm_up(self) -> None:
        """Run on the inputs, then restore the arena."""
        slots = self.input.slots
        before = [tensor[:, slots].clone() for tensor in self.arena.tensors]
        for _ in range(WARM_UPS):
            self._forward()
        for tensor, copied in zip(self.arena.tensors, before, strict=True):
            tensor[:, slots] = copied

    def _forward(self) -> Tensor:
        inputs = self.input
        pattern = ArenaPattern.anywhere(self.arena.rings, inputs.slots, inputs.first_chunk, self.num_chunks)
        conditioning = Conditioning(actions=inputs.actions, text=self.prompts.at(inputs.slots))
        output = self.transformer(inputs.x, inputs.sigma, conditioning, pattern=pattern)
        velocity: Tensor = output.prediction.float()
        return velocity


class StaticPasses:
    """One `StaticPass` per number of rows and chunks, made on first use."""

    def __init__(self, transformer: Transformer, arena: Arena, prompts: Prompts) -> None:
        self.transformer, self.arena, self.prompts = transformer, arena, prompts
        self._passes: dict[tuple[int, int], StaticPass] = {}

    def __call__(self, inputs: PassInput, num_chunks: int) -> Tensor:
        key = (len(inputs.x), num_chunks)
        if key not in self._passes:
            self._passes[key] = StaticPass(self.transformer, self.arena, self.prompts, inputs, num_chunks)
        return self._passes[key](inputs)
