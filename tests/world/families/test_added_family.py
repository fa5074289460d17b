"""A family from outside needs one entry in `FAMILIES`: its config and weight names are read and written as its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.world.definitions import context, random_actions
from world import CheckpointError, World
from world.families import FAMILIES
from world.families.family import Family
from world.model.config import TransformerConfig
from world.testing import tiny_transformer, tiny_world

NAMES = {"layers.*.ffn.up": "blocks.*.ffn_in", "layers.*": "blocks.*", "proj_out": "head"}


def _config_from_json(fields: Mapping[str, Any]) -> TransformerConfig:
    ours = {"hidden_size": "dim"}
    return TransformerConfig(**{ours.get(name, name): value for name, value in fields.items()})


def _config_to_json(config: TransformerConfig) -> dict[str, Any]:
    fields = asdict(config)
    return {"hidden_size": fields.pop("dim"), **fields}


OTHER = Family(config_from_json=_config_from_json, config_to_json=_config_to_json, weight_names=NAMES)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setitem(FAMILIES, "other", OTHER)
    ours = tiny_world()
    return World(ours.card, ours.codec, ours.transformer, ours.sampler, family="other")


def test_it_is_saved_under_its_own_names_and_loaded(world: World, tmp_path: Path) -> None:
    teacher = tiny_transformer(world.transformer.config, seed=1)
    world.save(tmp_path, extra={"teacher": teacher})
    description = json.loads((tmp_path / "world.json").read_text())
    assert description["family"] == "other"
    assert description["transformer"]["hidden_size"] == world.transformer.config.dim
    for role in ("student", "teacher"):
        names = load_file(tmp_path / f"{role}.safetensors").keys()
        assert {"layers.1.ffn.up.weight", "layers.0.qkv.bias", "proj_out.weight", "patch_in.weight"} <= names
        assert not [name for name in names if name.startswith(("blocks.", "head."))]

    loaded = World.load(tmp_path, dtype=torch.float32)
    assert loaded.transformer.config == world.transformer.config
    for name, value in loaded.transformer.state_dict().items():
        assert torch.equal(value, world.transformer.state_dict()[name].half().float()), name
    assert torch.equal(
        World.load(tmp_path, role="teacher", dtype=torch.float32).transformer.head.bias,
        teacher.head.bias.half().float(),
    )
    loaded.save(tmp_path / "again")
    again = World.load(tmp_path / "again", dtype=torch.float32)
    assert again.family == "other"
    frames, actions = context(loaded, seed=0)
    step = random_actions(loaded, 1, 0)
    assert torch.equal(again.start(frames, actions).step(step), loaded.start(frames, actions).step(step))


def test_an_unregistered_family_is_reported(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.save(tmp_path)
    monkeypatch.delitem(FAMILIES, "other")
    with pytest.raises(CheckpointError, match=r"names the transformer family 'other'; this program knows lightcone"):
        World.load(tmp_path)


def test_a_config_of_another_family_is_malformed(world: World, tmp_path: Path) -> None:
    world.save(tmp_path)
    path = tmp_path / "world.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"family": "lightcone"}))
    with pytest.raises(CheckpointError, match=r"malformed.*hidden_size"):
        World.load(tmp_path)
