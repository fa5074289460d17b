"""The machine code of `kernels.write_attend` in the user's cache: made once for a machine, used by every world in
bfloat16. Owns where it lies, and its errors."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch

from kernels.write_attend import native, prefer_native
from world.device import cache_root, machine
from world.errors import CompilationError


def has_native_attention(dtype: torch.dtype) -> bool:
    """Whether it has been made here, for worlds in `dtype`."""
    return dtype is torch.bfloat16 and native.can_run() and _path().exists()


def make_native_attention(dtype: torch.dtype) -> bool:
    """Make it, where it is missing and of use; returns whether it is there. Takes some seconds. Raises
    CompilationError."""
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


def use_native_attention(wanted: bool) -> None:
    """From now on in this process, where it has been made. Raises CompilationError where its file is damaged."""
    wanted = wanted and has_native_attention(torch.bfloat16)
    if wanted:
        try:
            native.load(_path())
        except OSError as exc:
            raise CompilationError(f"{_path()} is damaged: delete it, and run `lightcone compile` again") from exc
    prefer_native(wanted)


def _path() -> Path:
    described = json.dumps([machine(), native.digest()])
    return cache_root() / "compiled" / f"write_attend-{hashlib.sha256(described.encode()).hexdigest()[:16]}.so"
