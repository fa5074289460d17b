"""`lightcone bench int8`: cost and savings of 8 bits in keys and values and in linear layers. Owns the comparison.

One world takes the same actions in float32, in bf16, in bf16 with an int8 cache, and in bf16 with int8 linear layers in
its blocks (weights scaled per output channel, inputs by their range, measured in every call). Each step is
teacher-forced: the next chunk always follows the chunk generated in float32, so that figures are of single steps and
errors do not accumulate. All frames are decoded in float32; the peak signal-to-noise ratio is over all frames, against
float32's.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.chunks import denoised, started
from world.actions import Actions
from world.catalogue import find
from world.checkpoint import World
from world.codecs.pixels import to_float
from world.model.transformer import Conditioning
from world.rollout.cache import ArenaPattern
from world.rollout.inputs import chunk_vectors

HOLD_STEPS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for world, sessions and length."""
    parser.add_argument("--world", default="pong", metavar="NAME|PATH", help="world to measure (default: pong)")
    parser.add_argument("--sessions", type=int, default=8, help="sessions that share a step (default: 8)")
    parser.add_argument("--steps", type=int, default=150, help="chunks (default: 150)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    found = measure(str(find(args.world)), args.sessions, args.steps)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        for name, row in found.items():
            print(f"{name:<12} {row['cache_mb']:.1f} MB, step {row['step_ms']:.1f} ms, {row['psnr']:.2f} dB")
    return 0


@torch.inference_mode()
def measure(path: str, num_sessions: int, num_steps: int) -> dict[str, dict[str, Any]]:
    """Return for each way the megabytes of its cache, the median milliseconds of a step without decoding, and the
    decibels against float32."""
    exact, shortened, linears = (World.load(path, dtype=d) for d in (torch.float32, torch.bfloat16, torch.bfloat16))
    ways = {
        "float32": Way(exact, num_sessions),
        "bf16": Way(shortened, num_sessions),
        "int8 cache": Way(shortened, num_sessions, int8_cache=True),
        "int8 linears": Way(linears, num_sessions),
    }
    _quantise(linears.transformer.blocks)
    config, generator = exact.transformer.config, torch.Generator().manual_seed(0)
    shape = (num_sessions, config.chunk_frames, config.channels, config.height, config.width)
    clean, decoded = ways["float32"].last, exact.codec.initial_state(num_sessions)
    times: dict[str, list[float]] = {name: [] for name in ways}
    errors: dict[str, list[float]] = {name: [] for name in ways}
    held = _pressed(exact, num_sessions, generator)
    before = torch.zeros_like(chunk_vectors(exact, held, num_sessions))
    for number in range(num_steps):
        if number % HOLD_STEPS == 0:
            held = _pressed(exact, num_sessions, generator)
        vectors, noise = chunk_vectors(exact, held, num_sessions), torch.randn(shape, generator=generator)
        latents, frames = {}, {}
        for name, way in ways.items():
            begun = time.perf_counter()
            latents[name] = way.step(number, clean, noise, torch.cat([before, vectors], dim=1))
            times[name].append((time.perf_counter() - begun) * 1e3)
            frames[name] = to_float(exact.decode(latents[name], decoded)[0])
            errors[name].append(float((frames[name] - frames["float32"]).square().mean()))
        clean, before = latents["float32"], vectors
        decoded = exact.codec.state_after(clean)
    return {
        name: {
            "cache_mb": way.arena.num_bytes / 1e6,
            "step_ms": statistics.median(times[name]),
            "psnr": _psnr(statistics.fmean(errors[name])),
        }
        for name, way in ways.items()
    }


class Way:
    """Sessions from the world's first start, with their own cache."""

    def __init__(self, world: World, num_sessions: int, *, int8_cache: bool = False) -> None:
        self.world = world
        self.arena, self.first_chunk, self.last = started(world, num_sessions, int8_cache=int8_cache)

    def step(self, number: int, clean: Tensor, noise: Tensor, actions: Tensor) -> Tensor:
        """Generate chunk `number` after the start, from noise, following `clean`."""
        return denoised(self.world, self._pass, noise, clean, actions, self.first_chunk + number)

    def _pass(self, x: Tensor, sigma: Tensor, actions: Tensor, first: Tensor) -> Tensor:
        num_chunks = x.shape[1] // self.world.transformer.config.chunk_frames
        pattern = ArenaPattern.all_of(self.arena.rings, first, num_chunks)
        velocity: Tensor = self.world.transformer(x, sigma, Conditioning(actions=actions), pattern=pattern).prediction
        return velocity


class Int8Linear(nn.Module):
    """Replaces `linear` by PyTorch's int8 product; inputs and outputs keep their dtype."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-8).double() / 127
        zero = torch.zeros(len(scale), dtype=torch.int64)
        quantised = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantised, linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.quantized.linear_dynamic(x.float(), self.packed)
        return y.to(x.dtype)


def _quantise(module: nn.Module) -> None:
    """Replace every linear layer below `module`, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            _quantise(child)


def _pressed(world: World, num_sessions: int, generator: torch.Generator) -> Actions:
    """Press one button, or none, in each session."""
    buttons = len(world.card.buttons)
    actions = Actions.none(num_sessions, 1, buttons, len(world.card.axes))
    for row, choice in enumerate(torch.randint(0, buttons + 1, (num_sessions,), generator=generator).tolist()):
        if choice < buttons:
            actions.buttons[row, 0, choice] = True
    return actions


def _psnr(error: float) -> float:
    """Return the decibels of a mean squared error of frames in [−1, 1]."""
    return 10 * math.log10(4 / error) if error else math.inf
