"""Encoded streams and clips drawn from them: every frame keeps its action."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.clips import Dataset, DatasetError, Episode, save_episode, write_dataset_json
from distill.data.environments import make_environment
from distill.data.latents import ClipSampler, encode_dataset
from world.codecs.convolutional import ConvolutionalCodec
from world.codecs.pixels import to_float
from world.testing import CONFIGS

LENGTH = 12


@pytest.fixture
def sampler(tmp_path: Path) -> ClipSampler:
    """A sampler of one stream whose latent and action at frame t are both t."""
    time = torch.arange(1.0, 101.0)
    torch.save([(time[:, None, None, None].half(), time[:, None].half())], tmp_path / "train.pt")
    return ClipSampler(tmp_path / "train.pt", LENGTH, still_share=0.5)


def test_every_frame_of_a_clip_has_its_own_action(sampler: ClipSampler) -> None:
    clips = sampler.draw(400, torch.Generator().manual_seed(0))
    latents, actions = clips.latents[..., 0, 0, 0], clips.actions[..., 0]
    assert latents.shape == (400, LENGTH)
    num_still = 0
    for frame, action in zip(latents.tolist(), actions.tolist(), strict=True):
        moving = frame[frame.count(frame[0]) - 1 :]
        still = LENGTH - len(moving)
        num_still += still > 0
        assert moving == [moving[0] + i for i in range(len(moving))]
        expected = [0.0] * (still + 1) + moving[1:] if still else moving
        assert action == expected, "a repeated picture has no action, every other frame has its own"
        assert frame[0] > 1, "no action led to the first frame of a stream"
    assert 150 < num_still < 250
    assert {frame.count(frame[0]) - 1 for frame in latents.tolist()} == set(range(LENGTH))


def test_the_same_generator_draws_the_same_clips(sampler: ClipSampler) -> None:
    one, two, other = (sampler.draw(5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.latents, two.latents)
    assert torch.equal(one.actions, two.actions)
    assert not torch.equal(one.latents, other.latents)


@pytest.mark.parametrize("config_name", sorted(CONFIGS))
def test_encoding_a_dataset_agrees_with_the_codec(config_name: str, tmp_path: Path) -> None:
    """Also in pieces, with several pixel frames per latent, and with last frames that do not fill a latent."""
    rng = np.random.default_rng(0)
    num = 270
    torch.manual_seed(0)
    codec = ConvolutionalCodec(CONFIGS[config_name][0]).eval()
    p = codec.temporal_patch
    episode = Episode(
        frames=rng.integers(0, 256, (num, 32, 32, 3), np.uint8),
        buttons=rng.random((num, 2)) < 0.5,
        axes=np.zeros((num, 0), np.float32),
        rewards=np.zeros(num, np.float32),
        dones=np.zeros(num, np.bool_),
        oracle=np.zeros((num, 0), np.float32),
    )
    save_episode(tmp_path / "data" / "train" / "episode_00000.npz", episode)
    write_dataset_json(tmp_path / "data", replace(make_environment("bouncer").spec, state_variables=()), {})
    encode_dataset(codec, Dataset.open(tmp_path / "data"), tmp_path / "latents" / "train.pt", quiet=True)
    ((latents, actions),) = torch.load(tmp_path / "latents" / "train.pt", weights_only=True)
    used = num - (num - 1) % p
    with torch.no_grad():
        expected = codec.encode(to_float(torch.from_numpy(episode.frames[None, :used])))[0][0]
    assert len(latents) == len(actions) == 1 + (used - 1) // p
    assert (latents.float() - expected).square().mean() < 1e-3 * expected.var(), "equal up to bf16 rounding"
    by_frame = actions.view(-1, 2)[p - 1 :]  # the first latent holds one frame, with padding in front
    assert np.array_equal(by_frame.bool().numpy(), episode.buttons[:used])
    assert not actions.view(-1, 2)[: p - 1].any()


def write_stream(root: Path, dones: list[int], num: int = 60, *, continuing: bool) -> Dataset:
    """Write one stream with episodes that end at `dones`; the brightness of a frame is its number."""
    levels = np.arange(num, dtype=np.uint8)[:, None, None, None]
    episode = Episode(
        frames=np.broadcast_to(levels * 4, (num, 32, 32, 3)),
        buttons=np.zeros((num, 2), np.bool_),
        axes=np.zeros((num, 0), np.float32),
        rewards=np.zeros(num, np.float32),
        dones=np.isin(np.arange(num), dones),
        oracle=np.zeros((num, 0), np.float32),
    )
    save_episode(root / "train" / "episode_00000.npz", episode)
    write_dataset_json(root, replace(make_environment("bouncer").spec, continuing=continuing, state_variables=()), {})
    return Dataset.open(root)


@pytest.mark.parametrize("config_name", sorted(CONFIGS))
def test_no_training_clip_crosses_the_end_of_an_episode(config_name: str, tmp_path: Path) -> None:
    codec = ConvolutionalCodec(CONFIGS[config_name][0]).eval()
    p = codec.temporal_patch
    dones = [20, 21, 45, 59]
    dataset = write_stream(tmp_path / "data", dones, continuing=False)
    encode_dataset(codec, dataset, tmp_path / "train.pt", quiet=True)
    ((latents, actions, stretches),) = torch.load(tmp_path / "train.pt", weights_only=True)
    for first, stop in stretches.tolist():
        pixels = range(0 if first == 0 else p * (first - 1) + 1, p * (stop - 1) + 1)
        assert not set(pixels[:-1]) & set(dones), "an episode may end at the end of a stretch, not within it"
    counted = torch.arange(float(len(latents)))  # each latent is its own index, so a clip shows where it was cut
    torch.save([(counted[:, None, None, None].half(), actions, stretches)], tmp_path / "train.pt")
    drawn = ClipSampler(tmp_path / "train.pt", 4, still_share=0.0).draw(2000, torch.Generator().manual_seed(0))
    starts = set(drawn.latents[:, 0, 0, 0, 0].int().tolist())
    assert starts == {s for a, b in stretches.tolist() for s in range(max(a, 1), b - 3)}
    with pytest.raises(DatasetError, match=r"no unbroken clip of 26 latent frames.*record longer streams"):
        ClipSampler(tmp_path / "train.pt", 26)


def test_clips_of_a_continuing_stream_may_cross_the_end_of_a_game(tmp_path: Path) -> None:
    dataset = write_stream(tmp_path / "data", [20, 21, 45], continuing=True)
    encode_dataset(ConvolutionalCodec(CONFIGS["pixel"][0]).eval(), dataset, tmp_path / "train.pt", quiet=True)
    assert ClipSampler(tmp_path / "train.pt", 59).draw(1, torch.Generator()).latents.shape[1] == 59
