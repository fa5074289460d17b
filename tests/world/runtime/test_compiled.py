"""A rollout through compiled code equals one without it; packages that do not fit are not found."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.world.definitions import assert_within
from tests.world.rollouts import rolled_out
from world import World
from world.errors import CompilationError
from world.model.transformer import Output
from world.runtime.ahead_of_time import CompiledTransformer, compile_transformer, compiled_transformer, fitting_packages
from world.testing import tiny_world

needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def _check(world: World, slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    num_steps = world.transformer.config.window_chunks + 3  # past the ring's wrap
    plain, expected = rolled_out(world, slots, num_steps)
    world.compiled = compiled_transformer(world.transformer)
    assert isinstance(world.network(len(slots), 1), CompiledTransformer)
    used, call = [], CompiledTransformer.__call__

    def counted(*args: Any, **named: Any) -> Output:
        used.append(1)
        return call(*args, **named)

    monkeypatch.setattr(CompiledTransformer, "__call__", counted)
    calls = world.forward_calls
    through, ours = rolled_out(world, slots, num_steps)
    assert len(used) == 2 * num_steps
    assert world.forward_calls - calls == 2 * num_steps + len(slots)  # a replay fills each slot at its start
    assert_within(ours, expected, 1e-4)
    for cache, other in ((plain.arena.k, through.arena.k), (plain.arena.v, through.arena.v)):
        torch.testing.assert_close(other, cache, atol=1e-4, rtol=1e-4)


@pytest.fixture
def quick_wrappers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the packages' argument handling, most of the compiler's time, without optimisation; kernels keep it."""
    monkeypatch.setattr(torch._inductor.config.aot_inductor, "compile_wrapper_opt_level", "O0")


@needs_a_compiler
@pytest.mark.usefixtures("quick_wrappers")
@pytest.mark.timeout(600)  # compiling takes twice as long on a busy machine
def test_compiled_rollouts_with_a_sink_and_scattered_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(config="wan")
    assert compiled_transformer(world.transformer) is None
    folder = compile_transformer(world.transformer, [2])
    compiled_at = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(compiled_at) == 6
    _check(world, [3, 0], monkeypatch)
    assert compile_transformer(world.transformer, [2]) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == compiled_at, (
        "existing packages are not compiled again"
    )

    world.compiled = compiled_transformer(world.transformer)
    assert world.network(1, 1) is world.transformer
    rolled_out(world, [1], 1)  # runs uncompiled

    _, before = rolled_out(world, [0, 1], 2)
    with torch.no_grad():
        world.transformer.head.bias.add_(1.0)
    assert not torch.allclose(rolled_out(world, [0, 1], 2)[1], before, atol=0.1), (
        "the weights are shared with the model"
    )

    torch.set_num_threads(2)
    try:
        assert fitting_packages(world.transformer) == [], "code is for one number of threads"
    finally:
        torch.set_num_threads(1)
    assert fitting_packages(tiny_world(config="pixel").transformer) == []
    assert fitting_packages(tiny_world(config="wan", dtype=torch.bfloat16).transformer) == []


@needs_a_compiler
@pytest.mark.slow
@pytest.mark.parametrize("slots", [[2], [1, 2, 3]])
def test_compiled_rollouts_without_a_sink(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(config="pixel")
    compile_transformer(world.transformer, [len(slots)])
    _check(world, slots, monkeypatch)


def test_a_missing_compiler_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CompilationError, match=r"install g\+\+"):
        compile_transformer(tiny_world().transformer)


def test_a_batch_size_of_zero_is_rejected() -> None:
    with pytest.raises(CompilationError, match=r"batches \[0\]"):
        compile_transformer(tiny_world().transformer, [0])


def test_a_damaged_package_is_reported(tmp_path: Path) -> None:
    package = tmp_path / "begin-1-1.pt2"
    package.write_bytes(b"not a package")
    with pytest.raises(CompilationError, match=r"begin-1-1\.pt2 is damaged: delete it"):
        CompiledTransformer(tiny_world().transformer, tmp_path)
