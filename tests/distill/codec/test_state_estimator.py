"""State variables: their channels, where a clip shows estimates of them, and what the state estimator learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distill.codec.state_estimator import StateEstimatorConfig, StateEstimatorTask
from distill.data.clips import Dataset, DatasetError, Episode, save_episode, write_dataset_json
from distill.data.environments import make_environment
from distill.data.environments.base import EnvironmentSpec
from distill.data.latents import Clips, ClipSampler, encode_dataset, true_state_channels
from distill.recipes.warm_start import widened
from distill.tasks.context_corruption import ContextCorruption, LevelConfig, corrupt_context
from world.codecs.convolutional import ConvolutionalCodec, with_state_channels
from world.codecs.state_channels import StateVariable, to_channels
from world.model.patterns import TeacherForcing
from world.model.transformer import Conditioning
from world.testing import CONFIGS, tiny_transformer

SPEC: EnvironmentSpec = replace(
    make_environment("bouncer").spec,
    oracle_names=("score", "angle"),
    state_variables=(StateVariable(name="angle", periods=(360.0, 90.0), step=5.0),),
)


@pytest.mark.parametrize("config_name", sorted(CONFIGS))
def test_latents_are_encoded_with_the_true_state_of_their_last_frame(config_name: str, tmp_path: Path) -> None:
    config = replace(CONFIGS[config_name][0], state_variables=SPEC.state_variables)
    p, num = config.temporal_patch, 1 + 4 * config.temporal_patch
    oracle = np.stack([np.zeros(num), 10.0 * np.arange(num)], axis=1).astype(np.float32)
    episode = Episode(
        frames=np.zeros((num, 32, 32, 3), np.uint8),
        buttons=np.zeros((num, 2), np.bool_),
        axes=np.zeros((num, 0), np.float32),
        rewards=np.zeros(num, np.float32),
        dones=np.zeros(num, np.bool_),
        oracle=oracle,
    )
    save_episode(tmp_path / "train" / "episode_00000.npz", episode)
    write_dataset_json(tmp_path, SPEC, {})
    encode_dataset(ConvolutionalCodec(config).eval(), Dataset.open(tmp_path), tmp_path / "train.pt", quiet=True)
    ((latents, _),) = torch.load(tmp_path / "train.pt", weights_only=True)
    assert latents.shape == (5, *config.latent_shape)
    expected = to_channels(SPEC.state_variables, torch.from_numpy(oracle[::p, 1:]))[:, :, None, None]
    assert torch.allclose(latents[:, -5:].float(), expected.expand_as(latents[:, -5:]), atol=2e-3)


def _codec(num_channels: int) -> ConvolutionalCodec:
    """Return a codec with one angle in one period: three state channels after the picture's channels."""
    torch.manual_seed(0)
    state_variables = (StateVariable(name="angle", periods=(360.0,), step=5.0),)
    return ConvolutionalCodec(
        replace(CONFIGS["pixel"][0], channels=num_channels, state_variables=state_variables)
    ).eval()


def _stream(path: Path, codec: ConvolutionalCodec, length: int) -> None:
    """Save latents whose state channels are 1."""
    picture = torch.randn(1, length, codec.config.channels, *codec.config.latent_shape[1:])
    latents = with_state_channels(picture, torch.ones(1, length, 3))[0].half()
    torch.save([(latents, torch.zeros(length, 2).half())], path)


def test_a_share_of_clips_begins_with_estimated_states(tmp_path: Path) -> None:
    codec = _codec(2)
    _stream(tmp_path / "train.pt", codec, 200)
    sampler = ClipSampler(tmp_path / "train.pt", 6, still_share=0.0, codec=codec, estimated_share=0.5)
    clips = sampler.draw(4000, torch.Generator().manual_seed(0))
    assert (clips.latents[:, :, 2:] == 1).all(), "the targets are the truth"
    assert torch.equal(clips.past[:, :, :2], clips.latents[:, :, :2])
    estimated = (clips.past[:, :, 2:] != 1).any(dim=(2, 3, 4))
    assert (estimated.long().diff(dim=1) <= 0).all(), "estimates first"
    with torch.no_grad():
        assert torch.allclose(clips.past[estimated], codec.with_estimated_state(clips.latents)[estimated], atol=1e-6)
    shares = torch.bincount(estimated.sum(1), minlength=7) / len(estimated)
    assert torch.allclose(shares, torch.tensor([0.5] + [0.5 / 6] * 6), atol=0.025)
    bare = Clips(clips.latents, clips.actions)
    assert bare.past is bare.latents


def test_the_state_does_not_change_while_a_clip_stands_still(tmp_path: Path) -> None:
    codec = _codec(2)
    _stream(tmp_path / "train.pt", codec, 200)
    sampler = ClipSampler(tmp_path / "train.pt", 6, still_share=1.0, codec=codec)
    clips = sampler.draw(200, torch.Generator().manual_seed(0))
    still = (clips.latents[:, :, 0, 0, 0] == clips.latents[:, :1, 0, 0, 0]).sum(1)
    assert set(still.tolist()) == {2, 3, 4, 5, 6}
    change = clips.latents[:, :, -1, 0, 0]
    assert torch.equal(change == 0, torch.arange(6) < still[:, None])
    assert (clips.latents[:, :, 2:4] == 1).all()


def test_a_context_of_faded_or_lost_pictures_keeps_its_state(tmp_path: Path) -> None:
    """Lost pictures are those of the first frames, in a share of the clips."""
    config = CONFIGS["pixel"][1]
    network, pattern = tiny_transformer(config, 0), TeacherForcing(config, 6)
    generator = torch.Generator().manual_seed(0)
    latents = torch.ones(2000, 6, config.channels, 2, 2)
    codec = _codec(config.channels - 3)
    clips = Clips(latents, torch.zeros(2000, 6, config.action_dim), codec=codec)
    corruption = ContextCorruption(resampled_share=0.0, faded_share=0.5, lost_share=0.4)
    context = corrupt_context(network, clips, pattern, LevelConfig(), corruption, generator)
    assert (context[:, :, -3:] == 1).all()
    lost = (context[:, :, :-3] == 0).all(dim=(2, 3, 4))
    assert (lost.long().diff(dim=1) <= 0).all()
    num = torch.bincount(lost.sum(1), minlength=7) / len(lost)
    assert torch.allclose(num, torch.tensor([0.6] + [0.4 / 6] * 6), atol=0.04)
    faded = (context[:, :, :-3] < 1).any(dim=(2, 3, 4)) & ~lost
    assert 0.1 < faded.any(1).float().mean() < 0.5


def test_the_estimator_learns_what_a_picture_shows_and_the_mean_of_what_it_hides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    picture = torch.randn(1, 3000, 2, 2, 2)
    hidden = torch.randn(1, 3000).sign()
    change = torch.diff(picture[:, :, 0, 0, 0], dim=1, prepend=torch.zeros(1, 1))
    truth = torch.stack([picture[:, :, 1, 0, 1], hidden, change], dim=2)
    torch.save([(with_state_channels(picture, truth)[0].half(), torch.zeros(3000, 2).half())], tmp_path / "train.pt")
    codec = _codec(2)
    assert codec.state_estimator is not None
    clips = ClipSampler(tmp_path / "train.pt", 8, still_share=0.0)
    task = StateEstimatorTask(codec, clips, StateEstimatorConfig(batch_size=32))
    optimiser = torch.optim.Adam(codec.state_estimator.parameters(), 1e-3)
    for step in range(150):
        ((name, loss, _),) = task.losses(step, torch.Generator().manual_seed(step))
        assert name == task.averaged
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fresh = torch.randn(1, 500, 2, 2, 2)
    with torch.no_grad():
        shown, unknown, changed = codec.with_estimated_state(fresh)[0, 1:, 2:, 0, 0].unbind(1)
    assert (shown - fresh[0, 1:, 1, 0, 1]).square().mean() < 0.1
    assert (changed - fresh[0, :, 0, 0, 0].diff()).square().mean() < 0.2
    assert unknown.square().mean() < 0.1
    with pytest.raises(ValueError, match="has no state estimator"):
        StateEstimatorTask(ConvolutionalCodec(CONFIGS["pixel"][0]), clips, StateEstimatorConfig())


def test_a_student_with_added_channels_predicts_the_others_as_before() -> None:
    config = CONFIGS["pixel"][1]
    narrow = tiny_transformer(config, 0)
    wide = tiny_transformer(replace(config, channels=config.channels + 3), 1)
    nn.init.zeros_(wide.head.weight)
    nn.init.zeros_(wide.head.bias)
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    x = torch.randn(2, 4, config.channels + 3, config.height, config.width)
    sigma, cond = torch.rand(2, 4), Conditioning(actions=torch.zeros(2, 4, config.action_dim))
    with torch.no_grad():
        before = narrow(x[:, :, :-3], sigma, cond).prediction
        after = wide(x, sigma, cond).prediction
    assert torch.allclose(after[:, :, :-3], before, atol=1e-6)
    assert not after[:, :, -3:].any()


def test_a_state_variable_that_the_oracle_does_not_report_is_refused() -> None:
    spec = replace(SPEC, oracle_names=("score",))
    with pytest.raises(
        DatasetError, match=r"state variables \['angle'\], which its oracle does not report: choose from \['score'\]"
    ):
        true_state_channels(spec, np.zeros((3, 1), np.float32))
