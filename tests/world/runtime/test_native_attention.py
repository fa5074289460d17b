"""Rollouts with native attention are as close to float32 as without it; missing and damaged files are reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.dispatch import KernelChoice
from kernels.write_attend import native, write_attend
from tests.world.rollouts import rolled_out
from world import testing
from world.errors import CompilationError
from world.runtime.native_attention import has_native_attention, load_native_attention, make_native_attention
from world.testing import CONFIGS, tiny_world

needs_the_cpu = pytest.mark.skipif(not native.can_build(), reason="needs a CPU with AVX512-BF16, and g++")


@needs_the_cpu
@pytest.mark.parametrize("config_name", sorted(CONFIGS))
@pytest.mark.parametrize("slots", [[1, 2], [3, 0]])
def test_native_rollouts_are_as_accurate(config_name: str, slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    codec, config = CONFIGS[config_name]
    monkeypatch.setitem(testing.CONFIGS, "wide", (codec, replace(config, dim=32 * config.num_heads)))
    world = tiny_world(config="wide", dtype=torch.bfloat16)
    num_steps = world.transformer.config.window_chunks + 3  # past the ring's wrap
    _, exact = rolled_out(tiny_world(config="wide"), slots, num_steps)
    _, plain = rolled_out(world, slots, num_steps)

    assert make_native_attention(world.dtype)
    assert has_native_attention(world.dtype)
    assert load_native_attention()
    world.kernel_choice = KernelChoice(native_attention=True)
    calls = []

    def counted(*args: Any, **named: Any) -> Tensor:
        calls.append(1)
        return write_attend(*args, **named)

    monkeypatch.setattr("world.rollout.cache.write_attend", counted)
    _, through = rolled_out(world, slots, num_steps)
    assert len(calls) == 2 * num_steps * world.transformer.config.num_layers

    error, allowed = ((x - exact).abs().mean(dim=(0, 2, 3, 4, 5)) for x in (through, plain))
    assert (error <= 2 * allowed).all(), f"{error}, without {allowed}"
    assert not torch.equal(through, plain), "bit-equal: the machine code did not run"


def test_other_dtypes_have_no_native_attention() -> None:
    assert not make_native_attention(torch.float32)
    assert not has_native_attention(torch.float32)


@needs_the_cpu
def test_missing_compilers_and_damaged_libraries_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LIGHTCONE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilationError, match=r"install g\+\+"):
        make_native_attention(torch.bfloat16)
    assert not load_native_attention(), "there is none"
    monkeypatch.undo()

    monkeypatch.setenv("LIGHTCONE_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_loaded", False)
    folder = tmp_path / "compiled"
    monkeypatch.setattr(native, "build", lambda path: path.write_bytes(b"not a library"))
    assert make_native_attention(torch.bfloat16)
    assert not load_native_attention()
    assert native.is_loaded() is False
    assert f"{folder}/write_attend-" in caplog.text
    assert not list(folder.glob("*.so")), "it is deleted, so that it is compiled again"
