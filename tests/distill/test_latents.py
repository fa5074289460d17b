"""Encoded streams and the clips drawn from them: actions stay with the frames they led to."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.clips import Dataset, Episode, save_episode, write_dataset_json
from distill.environments import make_environment
from distill.latents import ClipSampler, encode_dataset
from world.codec import Codec, to_float
from world.testing import CONFIGS

LENGTH = 12


@pytest.fixture
def sampler(tmp_path: Path) -> ClipSampler:
    """One stream whose latent and action at frame t are both t."""
    time = torch.arange(1.0, 101.0)
    torch.save([(time[:, None, None, None].half(), time[:, None].half())], tmp_path / "train.pt")
    return ClipSampler(tmp_path / "train.pt", LENGTH, still_share=0.5)


def test_a_clip_s_actions_are_its_frames_s(sampler: ClipSampler) -> None:
    clips = sampler.draw(400, torch.Generator().manual_seed(0))
    latents, actions = clips.latents[..., 0, 0, 0], clips.actions[..., 0]
    assert latents.shape == (400, LENGTH)
    num_still = 0
    for frame, action in zip(latents.tolist(), actions.tolist(), strict=True):
        moving = frame[frame.count(frame[0]) - 1 :]
        still = LENGTH - len(moving)
        num_still += still > 0
        assert moving == [moving[0] + i for i in range(len(moving))]
        assert action == [0.0] * still + moving, "a repeated picture has no action, every other frame its own"
        assert frame[0] > 1, "the first frame of a stream was led to by no action"
    assert 150 < num_still < 250
    assert {frame.count(frame[0]) - 1 for frame in latents.tolist()} == set(range(LENGTH))


def test_the_same_generator_draws_the_same_clips(sampler: ClipSampler) -> None:
    one, two, other = (sampler.draw(5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.latents, two.latents)
    assert torch.equal(one.actions, two.actions)
    assert not torch.equal(one.latents, other.latents)


@pytest.mark.parametrize("config_name", sorted(CONFIGS))
def test_a_dataset_is_encoded_as_the_codec_encodes_it(config_name: str, tmp_path: Path) -> None:
    """Also in pieces, also where several pixel frames make one latent, also where the last frames do not fill one."""
    rng = np.random.default_rng(0)
    num = 270
    torch.manual_seed(0)
    codec = Codec(CONFIGS[config_name][0]).eval()
    p = codec.config.temporal_patch
    episode = Episode(
        frames=rng.integers(0, 256, (num, 32, 32, 3), np.uint8),
        buttons=rng.random((num, 2)) < 0.5,
        axes=np.zeros((num, 0), np.float32),
        rewards=np.zeros(num, np.float32),
        dones=np.zeros(num, np.bool_),
        oracle=np.zeros((num, 0), np.float32),
    )
    save_episode(tmp_path / "data" / "train" / "episode_00000.npz", episode)
    write_dataset_json(tmp_path / "data", make_environment("bouncer").spec, {})
    encode_dataset(codec, Dataset.open(tmp_path / "data"), tmp_path / "latents" / "train.pt", quiet=True)
    ((latents, actions),) = torch.load(tmp_path / "latents" / "train.pt", weights_only=True)
    used = num - (num - 1) % p
    with torch.no_grad():
        expected = codec.encode(to_float(torch.from_numpy(episode.frames[None, :used])))[0][0]
    assert len(latents) == len(actions) == 1 + (used - 1) // p
    assert (latents.float() - expected).square().mean() < 1e-3 * expected.var(), "but for bf16"
    by_frame = actions.view(-1, 2)[p - 1 :]  # the first latent holds one frame, padded in front
    assert np.array_equal(by_frame.bool().numpy(), episode.buttons[:used])
    assert not actions.view(-1, 2)[: p - 1].any()
