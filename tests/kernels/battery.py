"""Compare a changed kernel bit by bit with the original on a wide battery of inputs: `python -m tests.kernels.battery
KERNEL FOLDER` (FOLDER: the original's repository). Exits with status 1 if any output differs.

The original is loaded from FOLDER, the kernel to compare from the working directory; both in this process.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.kernels import test_norm_modulate, test_qk_norm_rope_write, test_ring_attention

DTYPES = (torch.float32, torch.bfloat16)


def integers(generator: torch.Generator, *limits: int) -> list[int]:
    return [int(torch.randint(1, limit + 1, (), generator=generator)) for limit in limits]


def modulations() -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(10)
    for number in range(60):
        b, f, n, c = integers(generator, 4, 5, 6, 90)
        chosen = torch.rand(6, generator=generator) < 0.3
        without = tuple(part for part, left in zip(test_norm_modulate.PARTS, chosen, strict=True) if left)
        parts = test_norm_modulate.given(b, f * n, f, c, DTYPES[number % 2], (*without, *("gate",) * ("y" in without)))
        x = parts.pop("x")
        every = {name: parts.get(name) for name in ("scale", "shift", "y", "gate", "weight", "bias")}
        yield {"x": x, **every, "kind": ("layer", "rms")[number % 3 % 2]}


def writes() -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(11)
    for number in range(60):
        b, t, heads, pairs = integers(generator, 4, 9, 7, 20)
        yield test_qk_norm_rope_write.Case(
            b=b,
            t=t,
            heads=heads,
            dim=2 * pairs,
            length=t + 7,
            norm=("none", "head", "full")[number % 3],
            sink=number % 2 == 0,
            int8=number % 4 > 1,
            by_head=number % 7 > 3,
            dtype=DTYPES[number % 5 % 2],
        ).arguments()


def attentions() -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(12)
    for number in range(60):
        t, heads, dim, *valid = integers(generator, 70, 4, 40, 96, 96, 96)
        yield test_ring_attention.Case(
            t=t,
            heads=heads,
            dim=dim,
            valid=tuple(valid),
            num_sink=integers(generator, min(valid))[0] if number % 2 else 0,
            int8=number % 4 > 1,
            by_head=number % 7 > 3,
            gate=number % 3 == 0,
            dtype=DTYPES[number % 5 % 2],
        ).arguments()


BATTERIES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "norm_modulate": modulations,
    "qk_norm_rope_write": writes,
    "ring_attention": attentions,
}


def loaded(kernel: str, root: Path) -> Callable[..., Any]:
    path = root / "kernels" / kernel / "triton.py"
    spec = importlib.util.spec_from_file_location(f"{kernel}_{abs(hash(root))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, f"{kernel}_triton")
    return function


def outputs(function: Callable[..., Any], arguments: dict[str, Any]) -> list[Tensor]:
    """Return the function's results and all tensors it may have written to."""
    own = {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    returned = function(**own)
    return [t for t in (*returned, *own.values()) if isinstance(t, Tensor)]


def main() -> int:
    kernel, root = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    changed, original = loaded(kernel, Path.cwd()), loaded(kernel, root)
    for arguments in BATTERIES[kernel]():
        pairs = zip(outputs(changed, arguments), outputs(original, arguments), strict=True)
        if any(not torch.equal(a.nan_to_num(nan=7e7), b.nan_to_num(nan=7e7)) for a, b in pairs):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
