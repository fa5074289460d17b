"""A checkpoint is checked whole when it is loaded: what cannot play is refused by file, and by what is wrong in it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from world import CheckpointError, World
from world.errors import RangeError
from world.numbers import checked, checked_count
from world.testing import tiny_world

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 123456\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_world(config="wan").save(tmp_path / "tiny")
    return tmp_path / "tiny"


def _edit_weight(path: Path, value: float) -> str:
    weights = load_file(path)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point() and tensor.ndim > 1)
    weights[name].view(-1)[0] = value
    save_file(weights, path)
    return name


@pytest.mark.parametrize("file", ["student.safetensors", "codec.safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_with_file_and_tensor(folder: Path, file: str, value: float) -> None:
    name = _edit_weight(folder / file, value)
    with pytest.raises(CheckpointError) as refused:
        World.load(folder)
    assert f"{file}: 1 of " in str(refused.value)
    assert name in str(refused.value)


def test_weights_too_large_for_16_bits_are_not_saved(tmp_path: Path) -> None:
    world = tiny_world()
    with torch.no_grad():
        world.transformer.patch_in.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"patch_in\.weight.*not finite in 16 bits"):
        world.save(tmp_path)


def _rewrite(folder: Path, **changes: Callable[[Any], Any]) -> None:
    with np.load(folder / "starts.npz") as arrays:
        contents = dict(arrays)
    np.savez(folder / "starts.npz", **contents | {key: change(contents[key]) for key, change in changes.items()})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "starts.npz").write_text(LFS_POINTER), "not a whole file of starts"),
        (lambda folder: (folder / "starts.npz").write_bytes(b""), "not a whole file of starts"),
        (
            lambda folder: (folder / "starts.npz").write_bytes((folder / "starts.npz").read_bytes()[:400]),
            "not a whole file of starts",
        ),
        (lambda folder: np.savez(folder / "starts.npz", names=np.array(["a"])), "frames"),
        (lambda folder: _rewrite(folder, frames=lambda f: f[:, :, :-1]), r"frames are uint8 .*this world's are uint8"),
        (lambda folder: _rewrite(folder, frames=lambda f: f.astype(np.float32)), "frames are float32"),
        (lambda folder: _rewrite(folder, buttons=lambda b: b[..., :-1]), "buttons are bool"),
        (lambda folder: _rewrite(folder, axes=lambda a: np.full_like(a, np.nan)), "axes are not all finite"),
        (lambda folder: _rewrite(folder, names=lambda n: n.astype(object)), "not a whole file of starts"),
    ],
    ids=["pointer", "empty", "truncated", "missing", "size", "floats", "buttons", "nan", "pickle"],
)
def test_starts_that_cannot_be_used_are_refused(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as refused:
        World.load(folder)
    assert "starts.npz" in str(refused.value)
    assert "pickle" not in str(refused.value), "nobody is advised to load it unsafely"


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("card", "fps", 0, "fps 0: must be a finite number from 0.1 to 240"),
        ("card", "fps", float("nan"), "fps nan"),
        ("card", "fps", "30", "fps '30'"),
        ("card", "height", 0, "height 0: must be an integer"),
        ("card", "width", 48, "the card's picture"),
        ("card", "axes", [], "buttons and axes"),
        ("card", "axes", [{"name": "x", "label": "X", "low": 1.0, "high": -1.0}], "low 1 must be below high -1"),
        ("card", "axes", [{"name": "x", "label": "X", "low": 0.0, "high": float("inf")}], "high of the axis x inf"),
        ("card", "statistics", {"motion": [float("nan"), 1.0]}, "statistics of motion nan"),
        ("transformer", "num_layers", 0, "num_layers 0"),
        ("transformer", "patch", 0, "patch 0"),
        ("transformer", "chunk_frames", 0, "chunk_frames 0"),
        ("transformer", "dim", 0, "dim 0"),
        ("transformer", "num_heads", 0, "num_heads 0"),
        ("transformer", "rope_base", float("nan"), "rope_base nan"),
        ("transformer", "channels", 5, "latents"),
        ("codec", "height", 0, "height 0"),
        ("codec", "bound", float("nan"), "bound nan"),
        ("sampler", "num_steps", 0, "num_steps 0"),
        ("sampler", "shift", 0.0, "shift 0.0"),
        ("sampler", "context_sigma", 1.5, "context_sigma 1.5"),
    ],
)
def test_numbers_of_the_description_are_checked(
    folder: Path, part: str, field: str, value: object, message: str
) -> None:
    path = folder / "world.json"
    description = json.loads(path.read_text())
    description[part][field] = value
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError) as refused:
        World.load(folder)
    assert message in str(refused.value)


def test_buttons_of_one_name_are_refused(folder: Path) -> None:
    path = folder / "world.json"
    description = json.loads(path.read_text())
    description["card"]["buttons"][1] = description["card"]["buttons"][0]
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="more than once"):
        World.load(folder)


def test_a_checked_number_keeps_its_value_and_a_wrong_one_names_its_range() -> None:
    assert checked(0.5, "x", 0, 1) == 0.5
    assert checked_count(3, "n") == 3
    for wrong in (True, None, "1", float("nan"), 2):
        with pytest.raises(RangeError, match=r"x .*from 0 to 1"):
            checked(wrong, "x", 0, 1)
    for wrong in (True, 1.0, 0):
        with pytest.raises(RangeError, match=r"n .*an integer from 1 to"):
            checked_count(wrong, "n")
