"""`lightcone bench kernels`: the fused kernels compared with their floors. Owns the counting of bytes and operations.

A kernel cannot be faster than its bytes at the chip's bandwidth, nor than its multiplications at the chip's peak; the
greater of these two times is its floor. Without a GPU only the floors of the chip `--chip` are printed; with one, also
the times of the kernels and of PyTorch's operations, and the share of the floor they reach.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.norm_modulate import norm_modulate
from kernels.norm_modulate.eager import norm_modulate_eager
from kernels.qk_norm_rope_write import qk_norm_rope_write
from kernels.qk_norm_rope_write.reference import qk_norm_rope_write_reference
from kernels.ring_attention import ring_attention


@dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """Dense bf16 operations and bytes per second according to the data sheet."""

    flops: float
    bandwidth: float


CHIPS = {
    "A100": Chip(flops=312e12, bandwidth=2.039e12),
    "H100": Chip(flops=989e12, bandwidth=3.35e12),
    "H200": Chip(flops=989e12, bandwidth=4.8e12),
    "B200": Chip(flops=2250e12, bandwidth=8.0e12),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A pass of `sessions` chunks: `tokens` queries in `frames` frames, `valid` keys in each slot."""

    name: str
    sessions: int
    frames: int
    tokens: int
    valid: int
    heads: int
    dim: int

    @property
    def channels(self) -> int:
        return self.heads * self.dim


SHAPES = (
    Shape(name="Wan 1.3B, 21 frames", sessions=1, frames=3, tokens=4680, valid=32760, heads=12, dim=128),
    Shape(name="Wan 1.3B, 9 frames", sessions=1, frames=3, tokens=4680, valid=14040, heads=12, dim=128),
    Shape(name="Pong, 64 sessions", sessions=64, frames=1, tokens=30, valid=480, heads=3, dim=64),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One call's multiplications and additions, and the bytes that it must read or write once."""

    flops: float
    bytes: float

    def floor_ms(self, chip: Chip) -> float:
        return 1e3 * max(self.flops / chip.flops, self.bytes / chip.bandwidth)


def works(shape: Shape) -> dict[str, Work]:
    """Return the work of each kernel in bf16; of ring attention also with int8 keys and values."""
    tokens = 2 * shape.sessions * shape.tokens * shape.channels  # bytes of one activation
    frames = 2 * shape.sessions * shape.frames * shape.channels
    keys = 2 * shape.sessions * shape.valid * shape.channels
    angles = 2 * 4 * shape.sessions * shape.tokens * shape.dim // 2
    scales = 4 * shape.sessions * shape.valid * shape.heads
    products = 4 * shape.sessions * shape.tokens * shape.valid * shape.channels
    return {
        "norm_modulate": Work(flops=0, bytes=4 * tokens + 3 * frames),
        "qk_norm_rope_write": Work(flops=0, bytes=6 * tokens + angles),
        "ring_attention": Work(flops=products, bytes=2 * tokens + 2 * keys),
        "ring_attention, int8": Work(flops=products, bytes=2 * tokens + keys + 2 * scales),
    }


Call = Callable[[], Any]


def calls(shape: Shape) -> dict[str, tuple[Call, Call | None]]:
    """Return for each kernel, on CUDA tensors, the fused call and the equivalent in PyTorch's operations, if any."""
    b, t, h, d = shape.sessions, shape.tokens, shape.heads, shape.dim

    def draw(*size: int) -> Tensor:
        return torch.randn(size, device="cuda", dtype=torch.bfloat16)

    x, y = draw(b, t, h * d), draw(b, t, h * d)
    gate, scale, shift = draw(b, shape.frames, 3, h * d).unbind(2)
    q, k, v = draw(b, t, 3, h, d).unbind(2)
    weight = draw(h, d)
    angle = torch.randn(b, t, d // 2, device="cuda")
    keys, values = draw(b, shape.valid, h, d), draw(b, shape.valid, h, d)
    slots = torch.arange(b, device="cuda", dtype=torch.int32)
    places, valid = torch.zeros_like(slots), torch.full_like(slots, shape.valid)
    write = (q, k, v, weight, weight, angle.cos(), angle.sin(), keys, values, slots, places)
    attend = (q.contiguous(), keys, values, slots, valid)
    int8 = torch.randint(-127, 128, keys.shape, device="cuda", dtype=torch.int8)
    scales = torch.rand(keys.shape[:3], device="cuda") / 100
    dense = (attend[0].transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
    return {
        "norm_modulate": (
            lambda: norm_modulate(x, scale, shift, y=y, gate=gate),
            lambda: norm_modulate_eager(x, scale, shift, y=y, gate=gate),
        ),
        "qk_norm_rope_write": (lambda: qk_norm_rope_write(*write), lambda: qk_norm_rope_write_reference(*write)),
        "ring_attention": (
            lambda: ring_attention(*attend),
            lambda: F.scaled_dot_product_attention(*dense),
        ),
        "ring_attention, int8": (
            lambda: ring_attention(attend[0], int8, int8, slots, valid, key_scales=scales, value_scales=scales),
            None,
        ),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chip", choices=sorted(CHIPS), help="chip whose floors are printed (default: this GPU's, else H100)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    name = args.chip or next((chip for chip in CHIPS if chip in device), "H100")
    rows = [row for shape in SHAPES for row in measured(shape, CHIPS[name])]
    if args.json:
        print(json.dumps({"device": device, "chip": name, "peak": asdict(CHIPS[name]), "rows": rows}, indent=1))
        return 0
    print(f"{device}; floors of {name}\n")
    print("| shape | kernel | GFLOP | MB | floor, ms | kernel, ms | TFLOP/s | GB/s | of floor | PyTorch, ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        took = row["kernel_ms"]
        columns = ["–"] * 5
        if took is not None:
            speed = f"{row['gflop'] / took:.0f}", f"{row['mb'] / took:.0f}"
            columns = [f"{took:.3f}", *speed, f"{row['floor_ms'] / took:.0%}", "–"]
            if row["pytorch_ms"] is not None:
                columns[-1] = f"{row['pytorch_ms']:.3f}"
        figures = f"{row['gflop']:.1f} | {row['mb']:.1f} | {row['floor_ms']:.3f}"
        print(f"| {row['shape']} | {row['kernel']} | {figures} | {' | '.join(columns)} |")
    return 0


def measured(shape: Shape, chip: Chip) -> list[dict[str, Any]]:
    timed = calls(shape) if torch.cuda.is_available() else {}
    rows = []
    for kernel, work in works(shape).items():
        kernel_ms, pytorch_ms = map(_median_ms, timed[kernel]) if timed else (None, None)
        rows.append(
            {
                "shape": shape.name,
                "kernel": kernel,
                "gflop": work.flops / 1e9,
                "mb": work.bytes / 1e6,
                "floor_ms": work.floor_ms(chip),
                "kernel_ms": kernel_ms,
                "pytorch_ms": pytorch_ms,
            }
        )
    return rows


def _median_ms(call: Call | None) -> float | None:
    if call is None:
        return None
    from triton.testing import do_bench  # imported here: only a GPU needs it

    return float(do_bench(call, return_mode="median"))
