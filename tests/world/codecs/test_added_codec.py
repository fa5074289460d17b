"""A codec from outside needs its own module and one entry in `CODECS`: it is saved, loaded, played and resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tests.world.definitions import assert_within, context, random_actions
from tests.world.rollouts import started, stepped
from world import CheckpointError, World
from world.codecs import CODECS
from world.codecs.codec import Codec, CodecState
from world.rollout.snapshots import check_state, from_bytes, to_bytes
from world.testing import tiny_transformer, tiny_world

PATCH = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchCodecConfig:
    height: int
    width: int
    channels: int = 4


class PatchCodec(Codec):
    """Linear in patches of 16 x 16 pixels and two frames; decoding sees the two latents before."""

    config: PatchCodecConfig

    def __init__(self, config: PatchCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.into = nn.Linear(2 * 3, config.channels)
        self.out = nn.Linear(3 * config.channels, 2 * 3)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        return cls(PatchCodecConfig(**fields))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.config.channels, self.config.height // PATCH, self.config.width // PATCH

    @property
    def temporal_patch(self) -> int:
        return 2

    @property
    def warm_up_latents(self) -> int:
        return 2

    def encode(self, frames: Tensor) -> tuple[Tensor, CodecState]:
        padded = torch.cat([frames[:, :1], frames], dim=1)
        means = F.avg_pool2d(rearrange(padded, "b (n p) c h w -> (b n) (p c) h w", p=2), PATCH)
        latents: Tensor = self.into(means.movedim(1, -1)).movedim(-1, 1)
        latents = rearrange(latents, "(b n) c h w -> b n c h w", b=len(frames))
        return latents, self.state_after(latents)

    def initial_state(self, batch: int) -> CodecState:
        zeros = self.out.weight.new_zeros(batch, 2, *self.latent_shape)
        return {"previous": zeros, "started": torch.zeros(batch, dtype=torch.bool)}

    def state_after(self, latents: Tensor) -> CodecState:
        before = torch.cat([latents.new_zeros(latents.shape[0], 2, *latents.shape[2:]), latents], dim=1)
        return {"previous": before[:, -2:], "started": torch.ones(len(latents), dtype=torch.bool)}

    def decode(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        stream = torch.cat([state["previous"], latents], dim=1)
        seen = torch.cat([stream[:, :-2], stream[:, 1:-1], stream[:, 2:]], dim=2)
        means: Tensor = self.out(seen.movedim(2, -1)).movedim(-1, 2)
        frames = rearrange(means, "b n (p c) h w -> b (n p) c h w", p=2)
        frames = frames.repeat_interleave(PATCH, 3).repeat_interleave(PATCH, 4)
        new_state = {"previous": stream[:, -2:], "started": torch.ones_like(state["started"])}
        return frames[:, 0 if bool(state["started"][0]) else 1 :], new_state


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(CODECS, "patches", PatchCodec)
    other = tiny_world()
    torch.manual_seed(0)
    codec = PatchCodec(PatchCodecConfig(height=other.card.height, width=other.card.width))
    transformer = tiny_transformer(replace(other.transformer.config, actions_per_frame=2))
    World(other.card, codec, transformer, other.sampler).save(tmp_path / "patches")
    return tmp_path / "patches"


def test_it_is_named_in_the_checkpoint_and_found_by_that_name(folder: Path, tmp_path: Path) -> None:
    assert json.loads((folder / "world.json").read_text())["codec_name"] == "patches"
    world = World.load(folder, dtype=torch.float32)
    assert isinstance(world.codec, PatchCodec)
    assert (world.context_pixel_frames, world.chunk_pixel_frames) == (1 + 2 * 4, 2)
    world.save(tmp_path / "again")
    frames, actions = context(world, seed=0)
    step = random_actions(world, 1, 0)
    shown = world.start(frames, actions).step(step)
    assert shown.shape == (1, 2, 32, 32, 3)
    assert torch.equal(World.load(tmp_path / "again", dtype=torch.float32).start(frames, actions).step(step), shown)


@pytest.mark.parametrize("exact", [True, False])
def test_sessions_continue_after_a_snapshot_and_a_rewind(folder: Path, *, exact: bool) -> None:
    world = World.load(folder, dtype=torch.float32)
    rollout = started(world, [1], timeline_chunks=8)
    actions = [random_actions(world, 1, number) for number in range(6)]
    before = [rollout.step(action, [1]) for action in actions[:3]]
    assert torch.equal(rollout.last_picture(1), before[-1][0, -1])
    state = from_bytes(to_bytes(rollout.snapshot(1, exact=exact)))
    check_state(world, state)
    expected = torch.cat([rollout.step(action, [1]) for action in actions[3:]], 1).float()

    rollout.restore(2, state)
    resumed = torch.cat([rollout.step(action, [2]) for action in actions[3:]], 1).float()
    assert_within(resumed, expected, 0.0 if exact else 1.0)
    rollout.rewind(1, 3)
    again = torch.cat([rollout.step(action, [1]) for action in actions[3:]], 1).float()
    assert torch.equal(again, expected)


def test_sessions_in_a_batch_equal_sessions_alone(folder: Path) -> None:
    world = World.load(folder, dtype=torch.float32)
    together = stepped(started(world, [0, 2]), world, [0, 2], range(4))
    alone = stepped(started(world, [2]), world, [2], range(4))
    assert_within(together[1:], alone, 1e-4)


def test_an_unregistered_codec_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.load(folder)
    monkeypatch.delitem(CODECS, "patches")
    with pytest.raises(CheckpointError, match=r"names the codec 'patches'; this program knows convolutional"):
        World.load(folder)
    with pytest.raises(CheckpointError, match=r"PatchCodec is not in world\.codecs\.CODECS"):
        world.save(folder)
