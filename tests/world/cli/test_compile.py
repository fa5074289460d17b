"""`lightcone compile` compiles each batch size for the number of threads that its steps begin with."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from world import World
from world.cli import compile as command
from world.cli.arguments import add_compile_arguments
from world.errors import CompilationError
from world.rollout.step_threads import ThreadSettings
from world.testing import tiny_world


def _arguments(*words: str) -> Any:
    parser = ArgumentParser()
    add_compile_arguments(parser)
    return parser.parse_args(words)


def test_each_size_is_compiled_for_its_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_world().save(tmp_path / "tiny")
    compiled: list[tuple[list[int], int]] = []

    def tuned(path: Path, *, num_threads: int | None) -> World:
        world = World.load(path, dtype=torch.float32)
        world.threads = ThreadSettings(most=2, preferred={1: 1, 4: 2})
        return world

    def compile_transformer(_: object, batches: Sequence[int], __: object) -> Path:
        compiled.append((list(batches), torch.get_num_threads()))
        return tmp_path / f"threads-{torch.get_num_threads()}"

    monkeypatch.setattr(command, "tuned", tuned)
    monkeypatch.setattr(command, "compile_transformer", compile_transformer)
    assert command.run(_arguments(str(tmp_path / "tiny"))) == 0
    assert compiled == [([1], 1), ([2], 1), ([4], 2), ([8], 2)]
    printed = capsys.readouterr().out
    assert "for 1 thread: " in printed
    assert "threads-2" in printed


def test_wrong_sizes_are_named_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "tuned", None)
    with pytest.raises(CompilationError, match=r"batches \[0\]"):
        command.run(_arguments("pong", "--batches", "0"))
