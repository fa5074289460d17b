"""Recorded play: the split, the mixture of policies, and the files."""

import json
from pathlib import Path

import numpy as np
import pytest

from distill.data.clips import Dataset, DatasetError, Episode, load_dones, load_episode, require_clips, save_episode
from distill.data.collect import CollectConfig, collect, mixed_policy, record
from distill.data.environments import Control, EnvironmentSpec, Step, make_environment
from world.card import Axis
from world.errors import LightconeError

CONFIG = CollectConfig(environment="bouncer", num_train=3, num_heldout=2, frames_per_stream=40)
SKILLED = 7.0


class Marked:
    """An environment whose skilled control is recognisable: its axis value lies outside the axis range."""

    spec = EnvironmentSpec(
        name="marked",
        title="",
        description="",
        fps=30,
        height=16,
        width=16,
        axes=(Axis(name="x", label="", low=-1, high=1),),
        data_license="",
    )

    def reset(self, seed: int) -> Step:
        return Step(np.full((16, 16, 3), seed % 256, np.uint8), 0.0, False, np.zeros(0, np.float32))

    def step(self, control: Control) -> Step:
        return self.reset(0)

    def skilled_control(self, rng: np.random.Generator) -> Control | None:
        return Control(np.zeros(0, np.bool_), np.array([SKILLED], np.float32))


def _shares(config: CollectConfig, num: int = 60_000) -> tuple[float, float, float]:
    """Return the (random, skilled, idle) shares of the frames that a policy plays."""
    policy = mixed_policy(Marked(), config, np.random.default_rng(0))
    axes = np.array([policy().axes[0] for _ in range(num)])
    random = (np.abs(axes) <= 1) & (axes != 0)
    return float(random.mean()), float((axes == SKILLED).mean()), float((axes == 0).mean())


def test_at_least_thirty_percent_of_frames_are_random_bursts() -> None:
    random, skilled, idle = _shares(CONFIG)
    assert random >= 0.3
    assert skilled > 0.4
    assert 0.05 < idle < 0.2
    assert _shares(CollectConfig(environment="", random_share=0.8, skilled_share=0.2))[0] > 0.7


def test_random_bursts_hold_their_actions_for_several_frames() -> None:
    config = CollectConfig(environment="", random_share=1.0, skilled_share=0.0, hold_frames_mean=6.0)
    policy = mixed_policy(Marked(), config, np.random.default_rng(0))
    axes = np.array([policy().axes[0] for _ in range(20_000)])
    assert 5 < len(axes) / np.count_nonzero(np.diff(axes)) < 7


def test_shares_with_too_little_randomness_are_rejected() -> None:
    with pytest.raises(LightconeError, match=r"random_share 0\.2: at least 0\.3"):
        CollectConfig(environment="pong", random_share=0.2)
    with pytest.raises(LightconeError, match="exceed 1"):
        CollectConfig(environment="pong", random_share=0.6, skilled_share=0.6)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("collect") / "data"
    collect(root, CONFIG, workers=1, quiet=True)
    return Dataset.open(root)


def test_no_stream_is_in_both_splits(dataset: Dataset) -> None:
    train, heldout = (list(dataset.episodes(split)) for split in ("train", "heldout"))
    assert (len(train), len(heldout)) == (3, 2)
    frames = [episode.frames.tobytes() for episode in train + heldout]
    assert len(set(frames)) == 5
    for index, episode in enumerate(train):
        expected = record(make_environment("bouncer"), CONFIG, CONFIG.seed + index)
        assert np.array_equal(episode.frames, expected.frames)
        assert np.array_equal(episode.buttons, expected.buttons)


def test_a_stream_has_the_documented_shapes_and_types(dataset: Dataset) -> None:
    episode = next(dataset.episodes("train"))
    assert episode.frames.shape == (40, 32, 32, 3)
    assert episode.frames.dtype == np.uint8
    for array, shape, dtype in (
        (episode.buttons, (40, 2), np.bool_),
        (episode.axes, (40, 0), np.float32),
        (episode.oracle, (40, 3), np.float32),
        (episode.rewards, (40,), np.float32),
        (episode.dones, (40,), np.bool_),
    ):
        assert array.shape == shape
        assert array.dtype == dtype
    assert not episode.buttons[0].any(), "no action led to the first frame"
    assert episode.actions().buttons.shape == (1, 40, 2)


def test_the_action_of_a_frame_is_the_one_that_led_to_it() -> None:
    episode = record(make_environment("bouncer"), CollectConfig(environment="bouncer", frames_per_stream=300), 0)
    paddle = np.diff(episode.oracle[:, 2])
    pressed = episode.buttons[1:, 1].astype(int) - episode.buttons[1:, 0].astype(int)
    moved = paddle != 0
    assert moved.sum() > 50
    assert np.array_equal(np.sign(paddle[moved]), pressed[moved])


def test_collecting_again_records_only_what_is_missing(dataset: Dataset) -> None:
    paths = dataset.paths("train") + dataset.paths("heldout")
    before = {path: path.read_bytes() for path in paths}
    paths[1].unlink()
    stamps = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
    collect(dataset.root, CONFIG, workers=1, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    ours, theirs = load_episode(paths[1]), before[paths[1]]
    restored = Path(dataset.root / "again.npz")
    restored.write_bytes(theirs)
    assert np.array_equal(ours.frames, load_episode(restored).frames)


def test_spec_and_configuration_survive_json(dataset: Dataset) -> None:
    assert dataset.spec == make_environment("bouncer").spec
    assert dataset.collected["random_share"] == CONFIG.random_share
    assert json.loads((dataset.root / "dataset.json").read_text())["collected"]["environment"] == "bouncer"


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"environment": {"buttons": 3}, "collected": {}}'])
def test_a_damaged_description_of_a_dataset_is_said(tmp_path: Path, damage: str) -> None:
    (tmp_path / "dataset.json").write_text(damage)
    with pytest.raises(DatasetError, match=r"dataset\.json is damaged .*: delete .* and run `lightcone collect` again"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_stream_is_named(dataset: Dataset, tmp_path: Path, damage: bytes | None) -> None:
    whole = dataset.paths("train")[0].read_bytes()
    path = tmp_path / "episode_00000.npz"
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    for load in (load_episode, load_dones):
        with pytest.raises(DatasetError, match=r"episode_00000\.npz is damaged .*: delete it"):
            load(path)


def test_streams_must_be_long_enough_to_train_on(dataset: Dataset) -> None:
    require_clips(dataset, 39)
    with pytest.raises(DatasetError, match="has 39 frames that an action led to, and training needs 40"):
        require_clips(dataset, 40)


def test_an_episode_survives_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    episode = Episode(
        frames=rng.integers(0, 256, (5, 16, 32, 3), np.uint8),
        buttons=rng.random((5, 3)) < 0.5,
        axes=rng.random((5, 2), np.float32),
        rewards=rng.random(5, np.float32),
        dones=rng.random(5) < 0.5,
        oracle=np.array([[1.0], [np.nan], [3.0], [4.0], [5.0]], np.float32),
    )
    save_episode(tmp_path / "train" / "episode_00000.npz", episode)
    loaded = load_episode(tmp_path / "train" / "episode_00000.npz")
    for name in Episode.__slots__:
        ours, theirs = getattr(loaded, name), getattr(episode, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs, equal_nan=name == "oracle")
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["episode_00000.npz"]


def test_an_invalid_dataset_is_reported_with_its_path(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"no dataset at .*nowhere: run `lightcone collect` first"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="split 'test': choose one of train, heldout"):
        dataset.paths("test")
    (tmp_path / "dataset.json").write_text((dataset.root / "dataset.json").read_text())
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "episode_00000.partial.npz").write_bytes(b"half")
    with pytest.raises(DatasetError, match="holds no episodes"):
        Dataset.open(tmp_path).paths("train")
