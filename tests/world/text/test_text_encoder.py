"""A world names its text encoder; a world without one says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.world.definitions import context, random_actions
from world import CheckpointError, World
from world.testing import tiny_world
from world.text import TEXT_ENCODERS


class Letters:
    """One token per letter of the alphabet that its file lists."""

    name = "letters"

    def __init__(self, folder: Path) -> None:
        self.alphabet = (folder / "alphabet.txt").read_text()

    def encode(self, text: str) -> Tensor:
        return torch.eye(16)[[self.alphabet.index(letter) for letter in text[:4]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(TEXT_ENCODERS, "letters", Letters)
    (tmp_path / "alphabet.txt").write_text("abcdefgh")
    world = tiny_world(config="wan")
    world.text_encoder = Letters(tmp_path)
    world.save(tmp_path)
    return tmp_path


def test_words_reach_the_rollout(folder: Path) -> None:
    world = World.load(folder, dtype=torch.float32)
    frames, actions = context(world, seed=0)
    shown = []
    for text in ("bad", "cab"):
        rollout = world.rollout(1)
        rollout.start([0], frames, actions, [0], [world.encode_text(text)])
        shown.append(rollout.step(random_actions(world, 1, 0)))
    assert not torch.equal(*shown)


def test_a_world_without_an_encoder_says_so(tmp_path: Path) -> None:
    world = tiny_world(config="wan")
    world.save(tmp_path)
    assert json.loads((tmp_path / "world.json").read_text())["text_encoder"] is None
    with pytest.raises(CheckpointError, match=r"tiny-wan names no text encoder.*token embeddings"):
        World.load(tmp_path).encode_text("a door")


def test_an_unregistered_encoder_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TEXT_ENCODERS, "letters")
    with pytest.raises(CheckpointError, match=r"names the text encoder 'letters'; this program knows none"):
        World.load(folder)
