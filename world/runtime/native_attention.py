"""The machine code of `kernels.write_attend` in the user's cache: compiled once per machine, for every bfloat16 world.
Owns the file's location and its errors."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import torch

from kernels.write_attend import native
from world.device import machine
from world.errors import CompilationError
from world.runtime.packages import alone, compiled_root, complete_only

logger = logging.getLogger(__name__)


def can_have_native_attention(dtype: torch.dtype) -> bool:
    """Return whether worlds in `dtype` can use the library on this CPU."""
    return dtype is torch.bfloat16 and native.can_run()


def has_native_attention(dtype: torch.dtype) -> bool:
    """Return whether the library has been compiled here and worlds in `dtype` can use it."""
    return can_have_native_attention(dtype) and _path().exists()


def make_native_attention(dtype: torch.dtype) -> bool:
    """Compile the library if it is missing and worlds in `dtype` can use it; return whether it is there. Takes a few
    seconds. Raises CompilationError."""
    if not can_have_native_attention(dtype):
        return False
    path = _path()
    if not path.exists():
        if shutil.which("g++") is None:
            raise CompilationError("no C++ compiler found: install g++ (Debian, Ubuntu: apt-get install g++)")
        with alone():
            if not path.exists():
                try:
                    with complete_only(path) as work:
                        native.build(work)
                except RuntimeError as exc:
                    raise CompilationError(str(exc)) from exc
    return True


def load_native_attention() -> bool:
    """Load the library into this process if it has been compiled; return whether it is loaded. Models use it only if
    their `KernelChoice` says so. A damaged file is deleted, with a warning, so that it is compiled again."""
    if not has_native_attention(torch.bfloat16):
        return False
    try:
        native.load(_path())
    except OSError as exc:
        logger.warning("%s is damaged (%s); it is deleted, and compiled again later", _path(), exc)
        _path().unlink(missing_ok=True)
        return False
    return True


def _path() -> Path:
    key = json.dumps([machine(), native.digest()])
    return compiled_root() / f"write_attend-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
