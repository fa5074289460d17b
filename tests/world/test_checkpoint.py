"""Checkpoints: loaded as they were saved; errors say what is broken."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.world.definitions import context, random_actions
from world import CheckpointError, World, WorldCard
from world.testing import CONFIGS, tiny_transformer, tiny_world


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    world.save(tmp_path / "tiny", extra={"teacher": tiny_transformer(world.transformer.config, seed=1)})
    return tmp_path / "tiny"


def test_a_loaded_world_equals_the_saved_one_in_16_bits(world: World, folder: Path) -> None:
    loaded = World.load(folder, dtype=torch.float32)
    assert loaded.card == world.card
    assert loaded.sampler == world.sampler
    assert loaded.codec.config == world.codec.config
    assert loaded.transformer.config == world.transformer.config
    for module, original in ((loaded.codec, world.codec), (loaded.transformer, world.transformer)):
        weights = original.state_dict()
        assert module.state_dict().keys() == weights.keys()
        for name, value in module.state_dict().items():
            assert value.dtype is torch.float32
            assert torch.equal(value, weights[name].half().float()), name
    assert [start.name for start in loaded.starts] == [start.name for start in world.starts]
    for ours, theirs in zip(loaded.starts, world.starts, strict=True):
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.actions.buttons, theirs.actions.buttons)
        assert torch.equal(ours.actions.axes, theirs.actions.axes)


def test_a_world_saved_again_plays_bit_equal(world: World, folder: Path, tmp_path: Path) -> None:
    once = World.load(folder, dtype=torch.float32)
    once.save(tmp_path / "again")
    again = World.load(tmp_path / "again", dtype=torch.float32)
    frames, actions = context(world, seed=0)
    step = random_actions(world, 1, 0)
    assert torch.equal(once.start(frames, actions).step(step), again.start(frames, actions).step(step))


def test_a_folder_holds_several_roles(world: World, folder: Path) -> None:
    teacher = World.load(folder, role="teacher", dtype=torch.float32).transformer
    expected = tiny_transformer(world.transformer.config, seed=1).state_dict()
    assert all(torch.equal(value, expected[name].half().float()) for name, value in teacher.state_dict().items())
    student = World.load(folder, dtype=torch.float32).transformer
    assert not torch.equal(teacher.head_modulation, student.head_modulation)


def test_the_step_count_and_the_dtype_can_be_chosen(folder: Path) -> None:
    world = World.load(folder, num_steps=3, dtype=torch.bfloat16)
    assert len(world.sigmas) == 4
    assert {p.dtype for p in world.transformer.parameters()} == {torch.bfloat16}
    assert World.load(folder).dtype in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="num_steps 0"):
        World.load(folder, num_steps=0).sigmas  # noqa: B018  # the property raises


def test_weights_are_16_bit_on_disk(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert len(list(folder.glob("*.safetensors"))) == 3


def test_a_missing_world_says_how_to_get_one(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no world at .*nowhere.*lightcone train"):
        World.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no world at .*world\.json"):
        World.load(folder / "world.json")


def test_a_missing_role_is_reported_with_the_existing_ones(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"critic\.safetensors.*has: codec, student, teacher"):
        World.load(folder, role="critic")


def _edit(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda description: description | changes


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit(format=2), r"checkpoint format 2, this program reads 1"),
        (lambda d: {k: v for k, v in d.items() if k != "format"}, r"checkpoint format None"),
        (lambda d: [d], r"checkpoint format None"),
        (lambda d: {k: v for k, v in d.items() if k != "sampler"}, r"lacks sampler"),
        (lambda d: d | {"sampler": {"num_stepz": 2}}, r"malformed.*num_stepz"),
        (lambda d: d | {"transformer": d["transformer"] | {"depth": 2}}, r"malformed.*depth"),
        (lambda d: d | {"codec": {"height": 32, "width": 32}}, r"malformed.*widths"),
        (lambda d: d | {"card": {k: v for k, v in d["card"].items() if k != "fps"}}, r"card.*malformed.*fps"),
        (lambda d: d | {"card": d["card"] | {"colour": "red"}}, r"card.*malformed.*colour"),
        (lambda d: d | {"transformer": d["transformer"] | {"dim": 24}}, r"student\.safetensors does not fit"),
    ],
)
def test_a_wrong_description_is_reported(folder: Path, edit: Callable[[dict[str, Any]], Any], message: str) -> None:
    path = folder / "world.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError, match=message):
        World.load(folder)


def test_a_description_that_is_not_json_is_reported(folder: Path) -> None:
    (folder / "world.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        World.load(folder)


def test_weights_that_do_not_fit_are_reported(folder: Path) -> None:
    path = folder / "student.safetensors"
    weights = load_file(path)
    complete = path.read_bytes()
    save_file({name: value for name, value in weights.items() if name != "head.bias"}, path)
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*head\.bias"):
        World.load(folder)
    path.write_bytes(complete[: len(complete) // 2])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        World.load(folder)


def test_a_world_without_starts_loads(tmp_path: Path) -> None:
    world = tiny_world()
    world.starts.clear()
    world.save(tmp_path)
    assert World.load(tmp_path).starts == []


def test_a_card_survives_json(config_name: str) -> None:
    card = replace(tiny_world(config=config_name).card, provenance={"data": {"frames": 3}, "seed": 1})
    assert WorldCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert len(card.axes) == CONFIGS[config_name][1].num_axes
