"""Compile and time the machine code on this machine: `python -m kernels.write_attend.timing`.

Owns the evidence for using it; nothing imports it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from kernels.attention.matmul import matmul_attention
from kernels.timing import median_ms
from kernels.write_attend import native, write_attend

SHAPES = ((1, 1), (1, 2), (8, 1), (8, 2))  # sessions, chunks
HEADS, FRAMES, TOKENS, DIM = 3, 16, 30, 64


def by_products(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, rows: list[Tensor]) -> Tensor:
    """Compute the same by PyTorch's operations."""
    parts = []
    for number, row in enumerate(rows):
        part = slice(number * TOKENS, (number + 1) * TOKENS)
        for cache, new in ((keys, k), (values, v)):
            by_head = new[:, part].transpose(1, 2).reshape(-1, TOKENS, DIM)
            cache.flatten(0, 2).index_copy_(0, row, by_head)
        seen = [cache.flatten(2, 3).transpose(1, 2) for cache in (keys, values)]
        parts.append(matmul_attention(q[:, part], *seen))
    return torch.cat(parts, dim=1)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="time writing and attending in bfloat16 on this CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    if not native.can_build():
        raise SystemExit("needs a CPU with AVX512-BF16, and g++")
    with tempfile.TemporaryDirectory() as folder:
        native.build(Path(folder) / "write_attend.so")
        native.load(Path(folder) / "write_attend.so")
    torch.set_num_threads(args.threads)
    for sessions, chunks in SHAPES:
        keys, values = (torch.randn(sessions, HEADS, FRAMES, TOKENS, DIM).bfloat16() for _ in range(2))
        q, k, v = torch.randn(3, sessions, HEADS, chunks * TOKENS, DIM).bfloat16().transpose(2, 3)
        rows = [torch.arange(sessions * HEADS) * FRAMES + 5 + number for number in range(chunks)]
        inputs = (q, k, v, keys, values, rows)
        ours = median_ms(lambda x=inputs: write_attend(*x), args.repeats)  # type: ignore[misc]  # a default binds it
        theirs = median_ms(lambda x=inputs: by_products(*x), args.repeats)  # type: ignore[misc]
        print(f"{sessions} sessions, {chunks} chunks: {1e3 * ours:.0f} us, by products {1e3 * theirs:.0f} us")


if __name__ == "__main__":
    main()
