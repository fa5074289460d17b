"""`lightcone compile` compiles the batch sizes that were asked for."""

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
from world.testing import tiny_world


def _arguments(*words: str) -> Any:
    parser = ArgumentParser()
    add_compile_arguments(parser)
    return parser.parse_args(words)


def test_the_sizes_are_compiled_and_the_folder_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_world().save(tmp_path / "tiny")
    compiled: list[int] = []

    def compile_transformer(_: object, batches: Sequence[int], __: object) -> Path:
        compiled.extend(batches)
        return tmp_path / "packages"

    monkeypatch.setattr(command, "tuned", lambda path, **_: World.load(path, dtype=torch.float32))
    monkeypatch.setattr(command, "compile_transformer", compile_transformer)
    assert command.run(_arguments(str(tmp_path / "tiny"))) == 0
    assert compiled == [1, 2, 4, 8]
    assert str(tmp_path / "packages") in capsys.readouterr().out


def test_wrong_sizes_are_named_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "tuned", None)
    with pytest.raises(CompilationError, match=r"batches \[0\]"):
        command.run(_arguments("pong", "--batches", "0"))
