"""`lightcone bench caches`: the ring and common alternatives (see `other_caches`), all with the same world's weights,
each eager and compiled. Owns the stepping and the timing.

Two things are timed: the part that differs (norm and rotation of queries and keys, the cache, attention; of one layer,
for both kinds of pass), and whole steps (the passes of a chunk and its decoding). All take turns, so that a slow phase
of the machine affects all; medians are printed. Compiled means torch.compile of the whole network for the alternatives,
and the result of `lightcone compile` for the ring.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from benchmarks.chunks import Passes, denoised, started
from benchmarks.other_caches import Concatenated, FlexRing, flex_arena, flex_mask, flex_rows, window_of
from benchmarks.ring_heads import Heads, compiled_heads, eager_heads
from kernels.dispatch import KernelChoice
from world.catalogue import find
from world.checkpoint import World
from world.model.patterns import Rotation
from world.model.transformer import Conditioning
from world.rollout.cache import Arena, ArenaPattern
from world.runtime.ahead_of_time import compiled_transformer
from world.runtime.tuning import tuned

WARM_UP = 3

Part = Callable[[int, Tensor, Rotation], Tensor]
"""(number of chunks, raw queries, keys and values `b l 3 n d`, rotation) → attended values `b l n d`, of layer 0."""
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Way:
    """One kind of cache, with its own memory."""

    name: str
    passes: Passes
    part: Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for world, sessions, threads and length."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to measure (default: pong)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 8], help="sessions that share a step")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each (default: 40)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    world = tuned(find(args.world), num_threads=args.threads)
    if world.transformer.config.sink_frames:
        print("the alternative caches only support worlds without a sink", file=sys.stderr)
        return 1
    rows = [row for count in args.sessions for row in measure(world, count, args.steps)]
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {world.dtype}, PyTorch {torch.__version__}"
    if args.json:
        print(json.dumps({"world": world.card.name, "machine": machine, "rows": rows}, indent=1))
        return 0
    print(f"{world.card.name} on {machine}")
    for row in rows:
        print(
            f"{row['sessions']} sessions, {row['way']:<24} part {row['part_ms']:.3f} ms, step {row['step_ms']:.2f} ms"
        )
    return 0


@torch.no_grad()
def measure(world: World, num_sessions: int, num_steps: int) -> list[dict[str, Any]]:
    """Return one row per way: median milliseconds of the part (one layer, both passes of a step) and of the whole
    step."""
    stepper = Stepper(world, num_sessions)
    ways = stepper.ways()
    times: dict[str, tuple[list[float], list[float]]] = {way.name: ([], []) for way in ways}
    for count in range(WARM_UP + num_steps):
        for way in ways:
            for measured_ms, timed in zip(times[way.name], (stepper.part, stepper.step), strict=True):
                begun = time.perf_counter()
                timed(way, count)
                measured_ms.append((time.perf_counter() - begun) * 1e3)
    return [
        {
            "sessions": num_sessions,
            "way": name,
            "part_ms": statistics.median(part[WARM_UP:]),
            "step_ms": statistics.median(step[WARM_UP:]),
        }
        for name, (part, step) in times.items()
    ]


class Stepper:
    """The same steps of the same sessions for every way: the same noise, actions and clean chunks."""

    def __init__(self, world: World, num_sessions: int) -> None:
        self.world, self.config = world, world.transformer.config
        self.arena, self.first_chunk, _ = started(world, num_sessions)
        config, generator = self.config, torch.Generator().manual_seed(0)
        shape = (num_sessions, config.chunk_frames, config.channels, config.height, config.width)
        self.noise = torch.randn(shape, generator=generator)
        self.clean = torch.randn(shape, generator=generator)
        self.actions = torch.zeros(num_sessions, 2 * config.chunk_frames, config.action_dim)
        self.state = world.codec.initial_state(num_sessions)
        tokens = config.chunk_frames * config.tokens_per_frame
        qkv = (num_sessions, 2 * tokens, 3, config.num_heads, config.head_dim)
        raw = torch.randn(qkv, generator=generator).to(world.dtype)
        self.raw = {num_chunks: raw[:, : num_chunks * tokens].contiguous() for num_chunks in (2, 1)}
        self.rotations = {num_chunks: self._rotation(num_chunks) for num_chunks in (2, 1)}

    def step(self, way: Way, number: int) -> Tensor:
        """Generate chunk `number` after the start, decode it, and return its latents."""
        x = denoised(self.world, way.passes, self.noise, self.clean, self.actions, self.first_chunk + number)
        self.world.decode(x, self.state)
        return x

    def part(self, way: Way, _: int) -> None:
        """Run one layer's part of both passes, without what a pass prepares once for all layers."""
        for num_chunks, rotation in self.rotations.items():
            way.part(num_chunks, self.raw[num_chunks], rotation)

    def _rotation(self, num_chunks: int) -> Rotation:
        frames = self.first_chunk[:, None] * self.config.chunk_frames
        block: Any = self.world.transformer.blocks[0]
        angles = self.world.transformer.rotary(frames + torch.arange(num_chunks * self.config.chunk_frames))
        return block.rotation((angles, None))  # type: ignore[no-any-return]  # of a Block

    def ways(self) -> list[Way]:
        """Return all ways, each with its own cache of the same past."""
        packages, choice = compiled_transformer(self.world.transformer), self.world.kernel_choice
        plain, eager = replace(choice, native_attention=False), dict.fromkeys((1, 2), eager_heads)
        ways = [self._ring("ring, eager", self.world.transformer, eager, plain)]
        if packages is not None and packages.fits(len(self.noise), 1):
            block: Any = self.world.transformer.blocks[0]
            heads = {n: compiled_heads(block, self.raw[n], rotation) for n, rotation in self.rotations.items()}
            ways.append(self._ring("ring, compiled", packages, heads, choice))
        for kind, wrap in (("eager", _eager), ("compiled", _compiled)):
            ways.append(self._concatenated(f"concatenated, {kind}", wrap))
            ways.append(self._flex(f"flex_attention, {kind}", wrap))
        return ways

    def _ring(self, name: str, network: Any, heads: Mapping[int, Heads], choice: KernelChoice) -> Way:
        arena = _copied(self.arena, choice)
        patterns = {count: ArenaPattern.all_of(arena.rings, self.first_chunk, count) for count in (1, 2)}

        def passes(x: Tensor, sigma: Tensor, actions: Tensor, first: Tensor) -> Tensor:
            pattern = ArenaPattern.all_of(arena.rings, first, self._num_chunks(x))
            velocity: Tensor = network(x, sigma, Conditioning(actions=actions), pattern=pattern).prediction
            return velocity

        def part(num_chunks: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            q, k, v = heads[num_chunks](qkv, rotation)
            return patterns[num_chunks].attend_rotated(0, q, k, None, v)

        return Way(name, passes, part)

    def _concatenated(self, name: str, wrap: Wrap) -> Way:
        k, v = window_of(self.arena, self.first_chunk)
        transformer = self.world.transformer

        @wrap
        def one_pass(
            k: list[Tensor], v: list[Tensor], x: Tensor, sigma: Tensor, actions: Tensor, first: Tensor
        ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            pattern = Concatenated(self.config, [*k], [*v], first, self._num_chunks(x))
            prediction = transformer(x, sigma, Conditioning(actions=actions), pattern=pattern).prediction
            return prediction, pattern.k, pattern.v

        @wrap
        def one_part(
            k: Tensor, v: Tensor, qkv: Tensor, rotation: Rotation, num_chunks: int
        ) -> tuple[Tensor, Tensor, Tensor]:
            pattern = Concatenated(self.config, [k], [v], self.first_chunk, num_chunks)
            return pattern.attend(0, qkv, rotation)[0], pattern.k[0], pattern.v[0]

        def passes(*given: Tensor) -> Tensor:
            prediction: Tensor
            prediction, k[:], v[:] = one_pass(k, v, *given)
            return prediction

        def part(num_chunks: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            attended: Tensor = one_part(k[0], v[0], qkv, rotation, num_chunks)[0]
            return attended

        return Way(name, passes, part)

    def _flex(self, name: str, wrap: Wrap) -> Way:
        arena = flex_arena(self.arena, self.first_chunk)
        transformer = self.world.transformer
        k, v = ([layer.flatten(2, 3) for layer in cache] for cache in (arena.k, arena.v))
        make_mask = wrap(create_block_mask)

        @wrap
        def one_pass(
            k: list[Tensor],
            v: list[Tensor],
            rows: Tensor,
            mask: BlockMask,
            x: Tensor,
            sigma: Tensor,
            actions: Tensor,
            first: Tensor,
        ) -> Tensor:
            pattern = FlexRing(arena.config, k, v, first, rows, mask)
            prediction: Tensor = transformer(x, sigma, Conditioning(actions=actions), pattern=pattern).prediction
            return prediction

        @wrap
        def one_part(k: Tensor, v: Tensor, rows: Tensor, mask: BlockMask, qkv: Tensor, rotation: Rotation) -> Tensor:
            return FlexRing(arena.config, [k], [v], self.first_chunk, rows, mask).attend(0, qkv, rotation)[0]

        def passes(x: Tensor, sigma: Tensor, actions: Tensor, first: Tensor) -> Tensor:
            num_chunks = self._num_chunks(x)
            mask = flex_mask(arena.config, first, num_chunks, make_mask)
            rows = flex_rows(arena.rings, first, num_chunks)
            prediction: Tensor = one_pass(k, v, rows, mask, x, sigma, actions, first)
            return prediction

        def part(num_chunks: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            attended: Tensor = one_part(k[0], v[0], *prepared[num_chunks], qkv, rotation)
            return attended

        prepared = {  # once per pass, not per layer
            num_chunks: (
                flex_rows(arena.rings, self.first_chunk, num_chunks),
                flex_mask(arena.config, self.first_chunk, num_chunks),
            )
            for num_chunks in (1, 2)
        }
        return Way(name, passes, part)

    def _num_chunks(self, x: Tensor) -> int:
        return x.shape[1] // self.config.chunk_frames


def _eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
    return compiled


def _copied(arena: Arena, choice: KernelChoice) -> Arena:
    other = Arena(arena.config, arena.num_slots, dtype=arena.k.dtype, kernel_choice=choice)
    other.k.copy_(arena.k)
    other.v.copy_(arena.v)
    return other
