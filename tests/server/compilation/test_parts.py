"""What is compiled, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kernels.write_attend import native
from server.compilation.parts import ATTENTION, Part, missing_parts, next_part, sizes_to_compile
from world import World
from world.runtime.packages import folder_of
from world.testing import tiny_world


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTCONE_CACHE", str(tmp_path / "cache"))


def _loaded(tmp_path: Path, name: str = "tiny", dtype: torch.dtype = torch.float32) -> World:
    tiny_world().save(tmp_path / name)
    return World.load(tmp_path / name, dtype=dtype)


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_powers_of_two_and_the_largest_size_are_compiled(max_batch: int, sizes: list[int]) -> None:
    assert sizes_to_compile(max_batch) == sizes


def test_what_is_there_is_not_compiled_again(tmp_path: Path) -> None:
    world = _loaded(tmp_path)
    folder = folder_of(world.transformer)
    folder.mkdir(parents=True)
    for segment in ("begin", "between", "end"):
        for num_chunks in (1, 2):
            (folder / f"{segment}-1-{num_chunks}.pt2").touch()
    assert [part.batch for part in missing_parts({"tiny": world}, 3)] == [2, 3]


def test_attention_is_compiled_once_for_all_worlds_that_can_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "can_run", lambda: True)
    worlds = {name: _loaded(tmp_path, name, torch.bfloat16) for name in ("first", "second")}
    worlds["exact"] = _loaded(tmp_path, "exact")
    parts = missing_parts(worlds, 1)
    assert [part.world for part in parts if part.batch == ATTENTION] == ["first"]


def test_worlds_that_were_not_loaded_from_a_folder_need_nothing() -> None:
    assert missing_parts({"tiny": tiny_world()}, 8) == []


def test_attention_comes_first_then_what_is_played_then_the_order_of_the_worlds() -> None:
    def part(world: str, batch: int) -> Part:
        return Part(world=world, folder=Path(), dtype="bfloat16", batch=batch)

    parts = [part("a", 8), part("b", 2), part("a", ATTENTION), part("a", 1), part("b", 1)]
    order: list[Part] = []
    while parts:
        played = {"b"} if len(order) == 1 else set()
        order.append(next_part(parts, ["a", "b"], played))
        parts.remove(order[-1])
    assert order == [
        part("a", ATTENTION),
        part("b", 1),  # somebody plays it just then
        part("a", 1),
        part("a", 8),
        part("b", 2),
    ]
