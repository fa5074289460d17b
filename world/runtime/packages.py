"""Machine code of the network's segments as files ("packages") in the user's cache: where they are stored, how they are
written, and which are complete. Knows no passes.

There is one package per segment, batch size and number of chunks in a pass (see `world.rollout.rollout`): code for
arbitrary sizes was slower than uncompiled code. Weights are arguments, so that all layers share one `between` and a
world with new weights needs no new packages. Packages fit one network config, dtype, PyTorch release, CPU type, number
of cores and version of the sources; the folder's name is a digest of all these, so outdated packages are not found.

Packages run with any number of threads: the compiler is told to use all cores, and then writes no number into the code,
which with one thread takes as long as code that was compiled for one. A file appears under its name only when it is
complete, and one process at a time compiles into a cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

import kernels
from world.device import cache_root, machine
from world.errors import CompilationError
from world.model import block, config, rotary, transformer
from world.model.transformer import Transformer
from world.runtime import segments

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

CHUNKS = (1, 2)
"""Chunks in a pass: a denoise, or a commit and a denoise."""
PARTIAL = "partial-"
"""Prefix of the folders in which files are made."""

Package = Callable[[list[Tensor]], list[Tensor]]
Packages = dict[int, dict[str, Package]]
"""The machine code of one batch size, by number of chunks and segment."""


def folder_of(network: Transformer) -> Path:
    """Return where the network's packages are stored."""
    key = [asdict(network.config), str(network.patch_in.weight.dtype), os.cpu_count(), machine(), _sources()]
    return compiled_root() / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def compiled_root() -> Path:
    """Return the folder of everything that is compiled here."""
    return cache_root() / "compiled"


def compiled_sizes(network: Transformer) -> list[int]:
    """Return the batch sizes that this machine has all packages for."""
    names = {path.stem for path in folder_of(network).glob("*.pt2")}
    batches = {int(name.split("-")[1]) for name in names}
    return sorted(batch for batch in batches if names.issuperset(_names(network, batch)))


def load_packages(network: Transformer, batch: int) -> Packages | None:
    """Return the packages of one batch size, or None if some are missing. One that is damaged is deleted, with a
    warning, so that it is compiled again."""
    folder, packages = folder_of(network), Packages()
    for name in _names(network, batch):
        path = folder / f"{name}.pt2"
        if not path.exists():
            return None
        try:
            package = loaded(path)
        except CompilationError as exc:
            logger.warning("%s; it is deleted, and uncompiled code is used until it is compiled again", exc)
            path.unlink(missing_ok=True)
            return None
        segment, _, num_chunks = name.split("-")
        packages.setdefault(int(num_chunks), {})[segment] = package
    return packages


def compile_packages(
    network: Transformer, batches: Iterable[int], report: Callable[[str], None] = lambda _: None
) -> None:
    """Compile the missing packages of these batch sizes. Raises CompilationError."""
    folder, before = folder_of(network), torch.get_num_threads()
    for batch in batches:
        with alone(lambda: report("waiting for another process that compiles")):
            torch.set_num_threads(os.cpu_count() or 1)  # the compiler reads it
            try:
                for num_chunks in CHUNKS:
                    report(f"{batch} slot{'s' * (batch > 1)}, {num_chunks} chunk{'s' * (num_chunks > 1)}")
                    for segment, (module, inputs) in segments.segments(network, batch, num_chunks).items():
                        path = folder / f"{segment}-{batch}-{num_chunks}.pt2"
                        if not path.exists():
                            compile_module(module, inputs, path)
            finally:
                torch.set_num_threads(before)


def check_compiler() -> None:
    """Raise CompilationError, with the remedy, if this machine has no C++ compiler."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        raise CompilationError("no C++ compiler found: install g++ (Debian, Ubuntu: apt-get install g++)")


def compile_module(module: nn.Module, inputs: list[Tensor], path: Path) -> None:
    """Compile `module` into a package that takes its inputs, then its weights (`weights_of`), as arguments."""
    names = list(_named(module))
    holder = [module]  # in a list: as a submodule, its weights would become part of the program

    class WeightsAsArguments(nn.Module):
        def forward(self, *tensors: Tensor) -> Any:
            arguments, weights = tensors[: len(inputs)], tensors[len(inputs) :]
            return functional_call(holder[0], dict(zip(names, weights, strict=True)), arguments)

    with complete_only(path) as work, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's about its own code
        program = torch.export.export(WeightsAsArguments(), (*inputs, *weights_of(module)), strict=False)
        torch._inductor.aoti_compile_and_package(program, package_path=str(work))


@contextmanager
def complete_only(path: Path) -> Iterator[Path]:
    """Yield a path to write to. It becomes `path` if the block ends without an exception, and is deleted otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=path.parent) as folder:
        work = Path(folder) / path.name
        yield work
        with work.open("rb") as written:
            os.fsync(written.fileno())  # else the name could survive a power failure, and the content not
        work.replace(path)


@contextmanager
def alone(on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the cache's lock, which the system releases if this process dies, and delete what processes that died have
    left. on_wait: called if another process has the lock."""
    root = compiled_root()
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        if sys.platform != "win32":
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
        for left in (*root.glob(f"{PARTIAL}*"), *root.glob(f"*/{PARTIAL}*")):
            shutil.rmtree(left, ignore_errors=True)
        yield


def loaded(path: Path) -> Package:
    """Load a package as `torch._inductor.aoti_load_package` does, but without loading the compiler, and for flat
    arguments only. Raises CompilationError if the file is damaged."""
    try:
        package = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, -1)  # for one thread, on the CPU
    except RuntimeError as exc:
        raise CompilationError(f"{path} is damaged: {exc}") from exc
    run: Package = package.run
    return run


def _names(network: Transformer, batch: int) -> list[str]:
    return [f"{segment}-{batch}-{chunks}" for chunks in CHUNKS for segment in segments.segment_names(network)]


def _named(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, including buffers that a state dict omits."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def weights_of(module: nn.Module) -> list[Tensor]:
    """Return a module's weights in the order in which its package takes them."""
    return [tensor.detach() for tensor in _named(module).values()]


@cache
def _sources() -> str:
    """Return the digest of the sources that packages are compiled from."""
    own = [Path(__file__), *(Path(str(module.__file__)) for module in (segments, block, config, rotary, transformer))]
    digest = hashlib.sha256()
    for path in (*own, *sorted(Path(kernels.__file__).parent.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()
