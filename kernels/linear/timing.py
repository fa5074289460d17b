"""Time packed linear layers against PyTorch's on this machine: `python -m kernels.linear.timing`.

Owns the evidence for the dispatch rule; nothing imports it.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from kernels.linear.packed import PackedLinear, can_pack
from kernels.timing import median_ms

SHAPES = ((192, 576), (192, 192), (576, 192), (192, 1152))  # in, out
ROWS = (30, 60, 240)
NUM_LAYERS = 60


def median_us(layers: list[nn.Module], x: Tensor, repeats: int) -> float:
    """Return the median wall time of one layer in microseconds, running as many as a step does, so that caches are
    cold."""
    return 1e3 * median_ms(lambda: [layer(x) for layer in layers], repeats) / len(layers)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="time bfloat16 linear layers on this CPU, packed and unpacked")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"packing helps: {can_pack()}, threads: {args.threads}")
    for num_in, num_out in SHAPES:
        plain: list[nn.Module] = [nn.Linear(num_in, num_out).bfloat16() for _ in range(NUM_LAYERS)]
        for rows in ROWS:
            packed: list[nn.Module] = [PackedLinear(layer, rows) for layer in plain if isinstance(layer, nn.Linear)]
            x = torch.randn(rows, num_in).bfloat16()
            before, after = median_us(plain, x, args.repeats), median_us(packed, x, args.repeats)
            print(f"{rows} rows, {num_in} -> {num_out}: plain {before:.0f} us, packed {after:.0f} us")


if __name__ == "__main__":
    main()
