"""The machine code of `kernels.write_attend` in the user's cache: compiled once per machine, for every bfloat16 world.
Owns the file's location and its errors."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch

from kernels.write_attend import native
from world.device import cache_root, machine
from world.errors import CompilationError


def has_native_attention(dtype: torch.dtype) -> bool:
    """Return whether the library has been compiled here and worlds in `dtype` can use it."""
    return dtype is torch.bfloat16 and native.can_run() and _path().exists()


def make_native_attention(dtype: torch.dtype) -> bool:
    """Compile the library if it is missing and worlds in `dtype` can use it; return whether it is there. Takes a few
    seconds. Raises CompilationError."""
    if dtype is not torch.bfloat16 or not native.can_run():
        return False
    path = _path()
    if not path.exists():
        if shutil.which("g++") is None:
            raise CompilationError("no C++ compiler found: install g++ (Debian, Ubuntu: apt-get install g++)")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            native.build(path)
        except RuntimeError as exc:
            raise CompilationError(str(exc)) from exc
    return True


def load_native_attention() -> bool:
    """Load the library into this process if it has been compiled; return whether it is loaded. Models use it only if
    their `KernelChoice` says so. Raises CompilationError if the file is damaged."""
    if not has_native_attention(torch.bfloat16):
        return False
    try:
        native.load(_path())
    except OSError as exc:
        raise CompilationError(f"{_path()} is damaged: delete it, and run `lightcone compile` again") from exc
    return True


def _path() -> Path:
    key = json.dumps([machine(), native.digest()])
    return cache_root() / "compiled" / f"write_attend-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
