"""Time both forms of GELU on this machine: `python -m kernels.gelu.timing`.

Owns the evidence for the dispatch rule; nothing imports it.
"""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional as F

from kernels.gelu import gelu
from kernels.timing import median_ms

SHAPES = ((30, 576), (480, 576), (512, 1536))  # rows, channels


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="time bfloat16 GELU on this CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for shape in SHAPES:
        x = torch.randn(shape).bfloat16()
        ours = median_ms(lambda x=x: gelu(x), args.repeats)  # type: ignore[misc]  # a default binds x
        theirs = median_ms(lambda x=x: F.gelu(x, approximate="tanh"), args.repeats)  # type: ignore[misc]
        print(f"{shape}: by sigmoid {1e3 * ours:.0f} us, by PyTorch {1e3 * theirs:.0f} us")


if __name__ == "__main__":
    main()
