"""The network between its attentions, compiled ahead of time for this machine by PyTorch's AOTInductor. Owns the
packages: what they compute, how they are made, where they are kept, for what they fit.

A pass is cut where it attends: `Begin` leads to the first layer's queries and keys, `Between` from one layer's attended
values to the next layer's queries and keys, `End` to the velocity. Attention and the writing of the cache stay in the
context; compiled with the rest, they became slower than they had been. Weights are arguments, so that all
layers share one `Between`, and a world that is trained on needs no new packages. There are packages for every size of a
batch and for one chunk or two (see `world.rollout.rollout`): code for any size was slower than none. They fit one network
config, dtype, number of threads, release of PyTorch, kind of CPU and version of the sources; all of that is in their
folder's name, so what no longer fits is not found.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

import kernels
from kernels.norm_rope import norm_turn, qk_norm_turn
from world.device import cache_root, machine
from world.errors import CompilationError
from world.model import config, rotary, transformer
from world.model.rotary import Angles
from world.model.transformer import Block, Conditioning, Output, Transformer
from world.rollout.cache import ArenaPattern

BATCHES = (1, 2, 4, 8)
"""What is compiled unless others are asked for; other sizes of a batch go on uncompiled."""
CHUNKS = (1, 2)
"""In a pass: a denoise; a commit and a denoise."""

Turns = tuple[Tensor, ...]
"""Rotations of every token, complex: of queries and keys, `b l 1 1 d/2`; where there is a sink, of the queries that
meet it, `b l 1 d/2`."""


class Begin(nn.Module):
    """(x, sigma, actions, *turns) → (tokens, embedding, modulation, *heads): see `Transformer.embed` and `heads_of`."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, x: Tensor, sigma: Tensor, actions: Tensor, *turns: Tensor) -> tuple[Tensor, ...]:
        tokens, embedding, modulation = self.transformer.embed(x, sigma, Conditioning(actions=actions))
        block = _blocks(self.transformer)[0]
        _, qkv = block.enter(tokens, None, block.modulations(modulation))
        return tokens, embedding, modulation, *heads_of(block, qkv, turns)


class Between(nn.Module):
    """(tokens, attended, modulation, *turns) → (tokens, *heads)."""

    def __init__(self, before: Block, after: Block) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, tokens: Tensor, attended: Tensor, modulation: Tensor, *turns: Tensor) -> tuple[Tensor, ...]:
        tokens, pending = self.before.leave(tokens, attended, self.before.modulations(modulation), None)
        tokens, qkv = self.after.enter(tokens, pending, self.after.modulations(modulation))
        return tokens, *heads_of(self.after, qkv, turns)


class End(nn.Module):
    """(tokens, attended, modulation, embedding, x) → (the velocity,)."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self, tokens: Tensor, attended: Tensor, modulation: Tensor, embedding: Tensor, x: Tensor
    ) -> tuple[Tensor, ...]:
        block = _blocks(self.transformer)[-1]
        tokens, pending = block.leave(tokens, attended, block.modulations(modulation), None)
        return (self.transformer.predict(tokens, pending, embedding, x),)


class CompiledTransformer:
    """The same network as `transformer`, for passes over an arena without text: its packages and its very weights. For
    one thread at a time."""

    def __init__(self, transformer: Transformer, folder: Path) -> None:
        self.transformer = transformer
        blocks = _blocks(transformer)
        self._begin = weights_of(Begin(transformer))
        self._between = [weights_of(Between(before, after)) for before, after in pairwise(blocks)]
        self._end = weights_of(End(transformer))
        self._segments = {"begin", "end", *["between"] * (len(blocks) > 1)}
        self._packages: dict[tuple[int, int], dict[str, Callable[[list[Tensor]], list[Tensor]]]] = {}
        for path in sorted(folder.glob("*.pt2")):
            segment, batch, num_chunks = path.stem.split("-")
            self._packages.setdefault((int(batch), int(num_chunks)), {})[segment] = loaded(path)

    def fits(self, batch: int, num_chunks: int) -> bool:
        """Whether there are packages for so many slots and chunks."""
        return self._packages.get((batch, num_chunks), {}).keys() >= self._segments

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, *, pattern: ArenaPattern) -> Output:
        """As the network's, with actions; all inputs without gaps. Raises KeyError where it does not fit."""
        assert cond.actions is not None
        packages = self._packages[x.shape[0], len(pattern.rows)]
        self.transformer.forward_calls += 1
        positions = pattern.positions(x.shape[0], x.shape[1], x.device)
        turns = [_turn(self.transformer.rotary(positions.frames))[:, :, None, None]]
        if positions.sink is not None:
            turns.append(_turn(self.transformer.rotary(positions.sink))[:, :, None])
        tokens, embedding, modulation, *heads = packages["begin"]([x, sigma, cond.actions, *turns, *self._begin])
        for layer, weights in enumerate(self._between):
            attended = _attended(pattern, layer, heads)
            tokens, *heads = packages["between"]([tokens, attended, modulation, *turns, *weights])
        attended = _attended(pattern, len(self._between), heads)
        (velocity,) = packages["end"]([tokens, attended, modulation, embedding, x, *self._end])
        return Output(velocity, [], {})


def heads_of(block: Block, qkv: Tensor, turns: Turns) -> tuple[Tensor, ...]:
    """Queries, keys, values and, with a sink, the queries that meet it: `b n l d`, so that a head's lie together."""
    q_weight, k_weight = block.qk_weights()
    q, k = qk_norm_turn(qkv[:, :, :2], q_weight, k_weight, turns[0])
    sinks = [norm_turn(qkv[:, :, 0], q_weight, turn) for turn in turns[1:]]
    return tuple(head.transpose(1, 2).contiguous() for head in (q, k, qkv[:, :, 2], *sinks))


def _turn(angles: Angles) -> Tensor:
    return torch.complex(angles.cos, angles.sin)


def _attended(pattern: ArenaPattern, layer: int, heads: Sequence[Tensor]) -> Tensor:
    q, k, v, *sink = (head.transpose(1, 2) for head in heads)
    return pattern.attend_rotated(layer, q, k, sink[0] if sink else None, v).contiguous()


def compiled_transformer(transformer: Transformer) -> CompiledTransformer | None:
    """With the packages that fit, if this machine has any."""
    return CompiledTransformer(transformer, _folder(transformer)) if fitting_packages(transformer) else None


def fitting_packages(transformer: Transformer) -> list[str]:
    """The names of those that this machine has for the network, in the threads that are set now."""
    return sorted(path.name for path in _folder(transformer).glob("*.pt2"))


def compile_transformer(
    transformer: Transformer, batches: Sequence[int] = BATCHES, report: Callable[[str], None] = lambda _: None
) -> Path:
    """Make the packages that are missing; returns their folder. Takes minutes; what is done is kept. Raises
    CompilationError where it cannot be done."""
    if not batches or min(batches) < 1:
        raise CompilationError(f"batches {list(batches)}: name one size or more, each at least 1")
    if transformer.patch_in.weight.device.type != "cpu":
        raise CompilationError("passes are compiled for CPUs; on a GPU they are captured as graphs by themselves")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        raise CompilationError("no C++ compiler found: install g++ (Debian, Ubuntu: apt-get install g++)")
    folder = _folder(transformer)
    folder.mkdir(parents=True, exist_ok=True)
    for batch in batches:
        for num_chunks in CHUNKS:
            report(f"{batch} slot{'s' * (batch > 1)}, {num_chunks} chunk{'s' * (num_chunks > 1)}")
            _compile(transformer, batch, num_chunks, folder)
    return folder


@torch.no_grad()
def _compile(transformer: Transformer, batch: int, num_chunks: int, folder: Path) -> None:
    config, frames = transformer.config, num_chunks * transformer.config.chunk_frames
    tokens = frames * config.tokens_per_frame
    x = torch.zeros(batch, frames, config.channels, config.height, config.width)
    sigma, actions = torch.zeros(batch, frames), torch.zeros(batch, frames, config.action_dim)
    turn = torch.ones(batch, tokens, config.head_dim // 2, dtype=torch.complex64)
    turns = [turn[:, :, None, None].clone(), turn[:, :, None].clone()][: 2 if config.sink_frames else 1]
    attended = torch.zeros(batch, tokens, config.num_heads, config.head_dim, dtype=transformer.patch_in.weight.dtype)
    begin, blocks = Begin(transformer), _blocks(transformer)
    hidden, embedding, modulation, *_ = begin(x, sigma, actions, *turns)
    segments: dict[str, tuple[nn.Module, list[Tensor]]] = {
        "begin": (begin, [x, sigma, actions, *turns]),
        "end": (End(transformer), [hidden, attended, modulation, embedding, x]),
    }
    if len(blocks) > 1:
        segments["between"] = Between(blocks[0], blocks[1]), [hidden, attended, modulation, *turns]
    for segment, (module, inputs) in segments.items():
        path = folder / f"{segment}-{batch}-{num_chunks}.pt2"
        if not path.exists():
            compile_module(module, inputs, path)


def compile_module(module: nn.Module, inputs: list[Tensor], path: Path) -> None:
    """A package of `module`, whose weights (`weights_of`) are arguments after its inputs."""
    names = list(_named(module))
    apart = [module]  # in a list, or its weights would be the program's too

    class Apart(nn.Module):
        def forward(self, *tensors: Tensor) -> Any:
            given, weights = tensors[: len(inputs)], tensors[len(inputs) :]
            return functional_call(apart[0], dict(zip(names, weights, strict=True)), given)

    with tempfile.TemporaryDirectory(dir=path.parent) as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of itself
        program = torch.export.export(Apart(), (*inputs, *weights_of(module)), strict=False)
        made = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(work) / path.name))
        Path(made).replace(path)


def loaded(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """As `torch._inductor.aoti_load_package` does it, without loading the compiler, and for flat arguments only. Raises
    CompilationError where the file is damaged."""
    try:
        package = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, -1)  # for one thread, on the CPU
    except RuntimeError as exc:
        raise CompilationError(f"{path} is damaged: delete it, and run `lightcone compile` again") from exc
    run: Callable[[list[Tensor]], list[Tensor]] = package.run
    return run


def _blocks(transformer: Transformer) -> list[Block]:
    return [cast(Block, block) for block in transformer.blocks]


def _named(module: nn.Module) -> dict[str, Tensor]:
    """Weights, and buffers that a state dict leaves out as well."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def weights_of(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in _named(module).values()]


def _folder(transformer: Transformer) -> Path:
    dtype, threads = str(transformer.patch_in.weight.dtype), torch.get_num_threads()
    described = [asdict(transformer.config), dtype, threads, machine(), _sources()]
    return cache_root() / "compiled" / hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


@cache
def _sources() -> str:
    """Of what the packages are made of."""
    own = [Path(__file__), *(Path(str(module.__file__)) for module in (config, rotary, transformer))]
    digest = hashlib.sha256()
    for path in (*own, *sorted(Path(kernels.__file__).parent.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()
