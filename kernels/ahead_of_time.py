"""Compile the kernels for GPUs that this machine lacks: `python -m kernels.ahead_of_time`. Owns variants and limits.

Prints a Markdown table of what each kernel uses on each chip: registers, bytes spilled, shared memory, and the matrix
instruction. Exits with status 1 if a limit is exceeded. Does not work under TRITON_INTERPRET.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.norm_modulate.triton import norm_modulate_kernel
from kernels.qk_norm_rope_write.triton import qk_norm_rope_write_kernel
from kernels.ring_attention.blocks import blocks_of
from kernels.ring_attention.triton import ring_attention_kernel

CHIPS = (80, 86, 90, 100, 120)
SHARED_LIMIT = {80: 166_912, 86: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
"""Bytes of shared memory that one block may have (CUDA C++ programming guide, technical specifications)."""

MATRIX_INSTRUCTION = {80: "mma.sync", 86: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma", 120: "mma.sync"}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compile a kernel. types: the types of pointers and numbers, by name. constants: its constexprs, and
    arguments that are None."""

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int = 3
    multiplies: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a kernel uses. bytes_spilled: registers spilled to memory. instruction: for matrix products, or ""."""

    kernel: str
    chip: int
    registers: int
    bytes_spilled: int
    shared_bytes: int
    instruction: str

    def broken(self, multiplies: bool) -> str:
        """Return which limits are exceeded, in words."""
        problems = []
        if self.bytes_spilled:
            problems.append(f"spills {self.bytes_spilled} bytes")
        if self.shared_bytes > SHARED_LIMIT[self.chip]:
            problems.append(f"needs {self.shared_bytes} bytes of shared memory of {SHARED_LIMIT[self.chip]}")
        if multiplies and self.instruction != MATRIX_INSTRUCTION[self.chip]:
            problems.append(f"multiplies by {self.instruction or 'nothing'}")
        return ", ".join(problems)


def variants(chip: int) -> Iterator[Variant]:
    """Yield the shapes of Wan 1.3B (12 heads of 128, 1,536 channels) and of the shipped worlds (heads of 64)."""
    for dim in (64, 128):
        for int8 in (False, True):
            for sink in (False, True):
                yield _attention(chip, dim, int8=int8, sink=sink)
    for heads, dim in ((3, 64), (12, 128)):
        for int8 in (False, True):
            yield _write(heads, dim, int8=int8)
    for channels in (192, 1536):
        yield _modulate(channels)


def _attention(chip: int, dim: int, *, int8: bool, sink: bool) -> Variant:
    blocks = blocks_of((chip // 10, chip % 10), int8=int8)
    name = f"ring_attention, {dim} wide{', int8' if int8 else ''}{', sink' if sink else ''}"
    cache = "*i8" if int8 else "*bf16"
    types = dict.fromkeys(("q_ptr", "q_sink_ptr", "gate_ptr", "out_ptr"), "*bf16")
    types |= dict.fromkeys(("keys_ptr", "values_ptr"), cache)
    types |= dict.fromkeys(("key_scales_ptr", "value_scales_ptr", "lse_ptr"), "*fp32") | {"scale": "fp32"}
    types |= dict.fromkeys(("slots_ptr", "num_valid_ptr"), "*i32")
    absent = {"gate_ptr": None} | ({} if sink else {"q_sink_ptr": None})
    absent |= {} if int8 else {"key_scales_ptr": None, "value_scales_ptr": None}
    flags = {"SINK": sink, "INT8": int8, "GATE": False, "INTERPRETED": False, "PRECISION": "tf32"}
    sizes = {"BLOCK_M": blocks.queries, "BLOCK_N": blocks.keys, "BLOCK_D": dim, "EVEN_D": True}
    return Variant(
        name=name,
        kernel=ring_attention_kernel,
        types=types,
        constants=absent | flags | sizes,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
        multiplies=True,
    )


def _write(heads: int, dim: int, *, int8: bool) -> Variant:
    types = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "q_weight_ptr", "k_weight_ptr"), "*bf16")
    types |= dict.fromkeys(("query_ptr", "sink_query_ptr"), "*bf16")
    types |= dict.fromkeys(("cos_ptr", "sin_ptr", "sink_cos_ptr", "sink_sin_ptr"), "*fp32")
    types |= dict.fromkeys(("keys_ptr", "values_ptr"), "*i8" if int8 else "*bf16")
    types |= dict.fromkeys(("key_scales_ptr", "value_scales_ptr"), "*fp32") | {"eps": "fp32"}
    types |= dict.fromkeys(("slots_ptr", "places_ptr"), "*i32")
    absent = {} if int8 else {"key_scales_ptr": None, "value_scales_ptr": None}
    flags = {"NORM": "full", "SINK": True, "INT8": int8, "INTERPRETED": False}
    sizes = {"BLOCK_HEADS": triton.next_power_of_2(heads), "BLOCK_PAIRS": dim // 2}
    return Variant(
        name=f"qk_norm_rope_write, {heads} heads of {dim}{', int8' if int8 else ''}",
        kernel=qk_norm_rope_write_kernel,
        types=types,
        constants=absent | flags | sizes,
        num_warps=4,
    )


def _modulate(channels: int) -> Variant:
    pointers = ("x_ptr", "y_ptr", "gate_ptr", "scale_ptr", "shift_ptr", "r_ptr", "h_ptr")
    flags = dict.fromkeys(("LAYER", "HAS_Y", "HAS_GATE", "HAS_SCALE", "HAS_SHIFT"), True)
    flags |= dict.fromkeys(("HAS_WEIGHT", "HAS_BIAS", "INTERPRETED"), False)
    return Variant(
        name=f"norm_modulate, {channels} channels",
        kernel=norm_modulate_kernel,
        types=dict.fromkeys(pointers, "*bf16") | {"eps": "fp32"},
        constants={"weight_ptr": None, "bias_ptr": None, **flags, "BLOCK": triton.next_power_of_2(channels)},
        num_warps=4,
    )


def cost(variant: Variant, chip: int) -> Cost:
    """Compile a variant and return what it uses; needs no GPU."""
    names = variant.kernel.arg_names
    signature = {n: "constexpr" if n in variant.constants else variant.types.get(n, "i32") for n in names}
    aligned = [n for n in names if n not in variant.constants and not _unaligned(n)]
    attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in aligned if signature[n] != "fp32"}
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=variant.constants, attrs=attributes)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", chip, 32), options=options)
    used = _resources(compiled.asm["cubin"])
    instruction = next((i for i in dict.fromkeys(MATRIX_INSTRUCTION.values()) if i in compiled.asm["ptx"]), "")
    return Cost(
        kernel=variant.name,
        chip=chip,
        registers=used["REG"],
        bytes_spilled=used["STACK"],
        shared_bytes=compiled.metadata.shared,
        instruction=instruction,
    )


def _unaligned(name: str) -> bool:
    """Return whether this argument need not be a multiple of 16."""
    return name in ("tokens", "frame_tokens", "heads", "num_sink", "scale", "eps")


def _resources(cubin: bytes) -> dict[str, int]:
    """Return registers and stack of a compiled kernel; with Triton's options the stack holds only spilled registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "--dump-resource-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", printed)}


def main() -> int:
    parser = argparse.ArgumentParser(description="compile the kernels for GPUs that this machine lacks")
    parser.add_argument("--chips", type=int, nargs="+", choices=CHIPS, default=CHIPS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    costs = [(variant, cost(variant, chip)) for chip in args.chips for variant in variants(chip)]
    if args.json:
        print(json.dumps([asdict(found) | {"broken": found.broken(v.multiplies)} for v, found in costs], indent=1))
    else:
        print("| kernel | chip | registers | spilled, B | shared, KiB | multiplies by |\n|---|---|---|---|---|---|")
        for _, c in sorted(costs, key=lambda pair: pair[0].name):
            shared = f"{c.shared_bytes / 1024:.0f} of {SHARED_LIMIT[c.chip] / 1024:.0f}"
            what = f"`{c.instruction}`" if c.instruction else "–"
            print(f"| {c.kernel} | sm_{c.chip} | {c.registers} | {c.bytes_spilled} | {shared} | {what} |")
    broken = [f"{c.kernel} on sm_{c.chip} {c.broken(v.multiplies)}" for v, c in costs if c.broken(v.multiplies)]
    print("\n".join(broken), file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
