"""A rollout through compiled code equals one without it; packages that do not fit are not found."""

from __future__ import annotations

import shutil
import subprocess
import sys
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
from world.runtime.packages import alone, compiled_sizes, complete_only, folder_of
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[3]

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
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTCONE_CACHE", str(tmp_path))
    return tmp_path


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

    _, expected = rolled_out(world, [0, 1], 2)
    torch.set_num_threads(2)
    try:
        assert world.network(2, 1) is world.compiled, "code runs with any number of threads"
        assert_within(rolled_out(world, [0, 1], 2)[1], expected, 1e-4)
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


def _fake_packages(world: World, batch: int) -> Path:
    """Put a complete set of files with nothing in them into the cache."""
    folder = folder_of(world.transformer)
    folder.mkdir(parents=True)
    for segment in ("begin", "between", "end"):
        for num_chunks in (1, 2):
            (folder / f"{segment}-{batch}-{num_chunks}.pt2").write_bytes(b"not a package")
    return folder


def test_a_damaged_package_is_deleted_with_a_warning(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = tiny_world()
    folder = _fake_packages(world, 1)
    assert compiled_sizes(world.transformer) == [1]
    assert compiled_transformer(world.transformer) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "begin-1-1.pt2 is damaged" in caplog.text
    assert not (folder / "begin-1-1.pt2").exists()
    assert compiled_sizes(world.transformer) == []


def test_a_set_with_a_missing_package_does_not_count(own_cache: Path) -> None:
    world = tiny_world()
    (_fake_packages(world, 2) / "end-2-2.pt2").unlink()
    assert compiled_sizes(world.transformer) == []
    assert compiled_transformer(world.transformer) is None


def test_what_a_killed_compiler_left_is_not_loaded_and_is_deleted(own_cache: Path) -> None:
    left = own_cache / "compiled" / "digest" / "partial-1"
    left.mkdir(parents=True)
    (left / "begin-1-1.pt2").write_bytes(b"half")
    with alone():
        assert not left.exists()


def test_an_unfinished_file_never_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "begin-1-1.pt2"

    def write_half() -> None:
        with complete_only(path) as work:
            work.write_bytes(b"half")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_one_process_compiles_at_a_time(own_cache: Path) -> None:
    waited = []
    with alone():
        code = (
            "from world.runtime.packages import alone\nwith alone(lambda: print('waits', flush=True)): print('alone')"
        )
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert other.stdout is not None
        waited.append(other.stdout.readline())
        assert other.poll() is None
    waited.append(other.stdout.readline())
    assert waited == ["waits\n", "alone\n"]
    other.stdout.close()
    assert other.wait(30) == 0
