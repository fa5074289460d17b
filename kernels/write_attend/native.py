"""The machine code of `write_attend`: where it can run, how it is compiled and loaded. Owns the compiler call and the
operation that the library registers, `torch.ops.lightcone_avx512.write_attend`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("avx512.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++20", "-fopenmp", "-shared", "-fPIC")

_loaded = False


def can_run() -> bool:
    """Return whether this CPU has the instructions that the code uses."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def can_build() -> bool:
    """Return whether this CPU can run the code and a compiler is installed."""
    return can_run() and shutil.which("g++") is not None


@cache
def digest() -> str:
    """Return the digest of source and flags; the library also depends on the machine and PyTorch."""
    return hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]


def build(path: Path) -> None:
    """Compile the library to `path`, for this machine and this PyTorch. Raises RuntimeError with the compiler's
    message."""
    root = Path(torch.__file__).parent
    include, libraries = root / "include", root / "lib"
    work = path.with_suffix(".partial")
    command = ["g++", *FLAGS, f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    command += [f"-I{include}", f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}", str(SOURCE), "-o", str(work)]
    command += [f"-L{libraries}", "-ltorch_cpu", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"g++ could not compile {SOURCE.name}: {done.stderr[-2000:]}")
    work.replace(path)


def load(path: Path) -> None:
    """Load the library and register its operation, once per process. Raises OSError if the file is damaged."""
    global _loaded
    if _loaded:
        return
    torch.ops.load_library(path)
    torch.library.register_fake("lightcone_avx512::write_attend", _fake)
    _loaded = True


def is_loaded() -> bool:
    """Return whether this process has loaded the library."""
    return _loaded


def _fake(q: Tensor, *_: Any) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)
