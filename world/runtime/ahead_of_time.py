"""The network between its attentions, compiled ahead of time for this machine by PyTorch's AOTInductor. Owns the
packages: what they compute, how they are compiled, where they are stored, and which passes they fit.

A pass is cut at each attention: `Begin` computes the first layer's queries and keys, `Between` goes from one layer's
attended values to the next layer's queries and keys, `End` computes the velocity. Attention and cache writes stay in
the attention pattern; compiled with the rest, they became slower. Weights are arguments, so that all layers share one
`Between` and a world with new weights needs no new packages. There is one package per batch size and for one or two
chunks (see `world.rollout.rollout`): code for arbitrary sizes was slower than uncompiled code. Packages fit one network
config, dtype, number of threads, PyTorch release, CPU type and version of the sources; the folder's name is a digest of
all these, so outdated packages are not found.
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
from world.model import block, config, rotary, transformer
from world.model.block import Block
from world.model.rotary import Angles
from world.model.transformer import Conditioning, Output, Transformer
from world.rollout.cache import ArenaPattern

BATCHES = (1, 2, 4, 8)
"""Batch sizes compiled by default; other sizes run uncompiled."""
CHUNKS = (1, 2)
"""Chunks in a pass: a denoise, or a commit and a denoise."""

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
        block = _blocks(self.transformer)[0]
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
        block = _blocks(self.transformer)[-1]
        tokens, residual = block.after_attention(tokens, attended, block.modulations(modulation), None)
        return (self.transformer.predict(tokens, residual, embedding, x),)


class CompiledTransformer:
    """The same network as `transformer`, for passes over an arena without text. Runs the packages on the transformer's
    weights, which it shares. Not thread-safe."""

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
        """Return whether there are packages for this batch size and number of chunks."""
        return self._packages.get((batch, num_chunks), {}).keys() >= self._segments

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, *, pattern: ArenaPattern) -> Output:
        """Call the network with actions; all inputs must be contiguous. Raises KeyError if no package fits."""
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
    """Return queries, keys, values and, with a sink, the queries against it: `b n l d`, each head's rows contiguous."""
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
    """Return the compiled network if this machine has packages that fit, else None."""
    return CompiledTransformer(transformer, _folder(transformer)) if fitting_packages(transformer) else None


def fitting_packages(transformer: Transformer) -> list[str]:
    """Return the names of this machine's packages for the network at the present number of threads."""
    return sorted(path.name for path in _folder(transformer).glob("*.pt2"))


def compile_transformer(
    transformer: Transformer, batches: Sequence[int] = BATCHES, report: Callable[[str], None] = lambda _: None
) -> Path:
    """Compile the missing packages and return their folder. Takes minutes; finished packages are kept if it is
    interrupted. Raises CompilationError if this machine cannot compile."""
    if not batches or min(batches) < 1:
        raise CompilationError(f"batches {list(batches)}: give one or more sizes, each at least 1")
    if transformer.patch_in.weight.device.type != "cpu":
        raise CompilationError(
            "passes are compiled for CPUs only; on a GPU they are captured as CUDA graphs automatically"
        )
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
    """Compile `module` into a package that takes its inputs, then its weights (`weights_of`), as arguments."""
    names = list(_named(module))
    holder = [module]  # in a list: as a submodule, its weights would become part of the program

    class WeightsAsArguments(nn.Module):
        def forward(self, *tensors: Tensor) -> Any:
            arguments, weights = tensors[: len(inputs)], tensors[len(inputs) :]
            return functional_call(holder[0], dict(zip(names, weights, strict=True)), arguments)

    with tempfile.TemporaryDirectory(dir=path.parent) as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's about its own code
        program = torch.export.export(WeightsAsArguments(), (*inputs, *weights_of(module)), strict=False)
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(work) / path.name))
        Path(package).replace(path)


def loaded(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """Load a package as `torch._inductor.aoti_load_package` does, but without loading the compiler, and for flat
    arguments only. Raises CompilationError if the file is damaged."""
    try:
        package = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, -1)  # for one thread, on the CPU
    except RuntimeError as exc:
        raise CompilationError(f"{path} is damaged: delete it, and run `lightcone compile` again") from exc
    run: Callable[[list[Tensor]], list[Tensor]] = package.run
    return run


def _blocks(transformer: Transformer) -> list[Block]:
    return [cast(Block, block) for block in transformer.blocks]


def _named(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, including buffers that a state dict omits."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def weights_of(module: nn.Module) -> list[Tensor]:
    """Return a module's weights in the order in which its package takes them."""
    return [tensor.detach() for tensor in _named(module).values()]


def _folder(transformer: Transformer) -> Path:
    dtype, threads = str(transformer.patch_in.weight.dtype), torch.get_num_threads()
    key = [asdict(transformer.config), dtype, threads, machine(), _sources()]
    return cache_root() / "compiled" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


@cache
def _sources() -> str:
    """Return the digest of the sources that packages are compiled from."""
    own = [Path(__file__), *(Path(str(module.__file__)) for module in (block, config, rotary, transformer))]
    digest = hashlib.sha256()
    for path in (*own, *sorted(Path(kernels.__file__).parent.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()
