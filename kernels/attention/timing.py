"""Time the implementations of attention on this machine: `python -m kernels.attention.timing`.

Owns the evidence for the dispatch rule; nothing imports it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.attention.matmul import matmul_attention
from kernels.timing import median_ms

SHAPES = ((1, 48, 624), (8, 48, 624), (1, 256, 1024), (4, 288, 288))  # b, lq, lk


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Run `scaled_dot_product_attention` on `b l n d` tensors."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def measure(shape: tuple[int, int, int], *, gradients: bool, repeats: int) -> tuple[float, float]:
    """Return (fused, matmul) in milliseconds, in bfloat16 with 4 heads of 64 channels."""
    b, lq, lk = shape
    q, k, v = (torch.randn(b, length, 4, 64).bfloat16().requires_grad_(gradients) for length in (lq, lk, lk))

    def run(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        out = attend(q, k, v)
        if gradients:
            out.sum().backward()

    return median_ms(lambda: run(fused), repeats), median_ms(lambda: run(matmul_attention), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description="time bfloat16 attention on this CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"AMX: {torch.cpu.get_capabilities().get('amx_bf16', False)}, threads: {args.threads}")
    for gradients in (False, True):
        for shape in SHAPES:
            fused_ms, matmul_ms = measure(shape, gradients=gradients, repeats=args.repeats)
            print(f"b, lq, lk = {shape}, gradients {gradients}: fused {fused_ms:.2f} ms, matmul {matmul_ms:.2f} ms")


if __name__ == "__main__":
    main()
