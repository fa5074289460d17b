"""Figures of evaluation, on inputs whose figures are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distill.data.clips import Dataset, DatasetError, Episode, save_episode, write_dataset_json
from distill.data.environments import EnvironmentSpec
from distill.evaluation.drift import drift_figures
from distill.evaluation.generators import (
    Generator,
    copy_last,
    in_batches,
    reconstruct,
    student_generator,
    teacher_generator,
)
from distill.evaluation.pong import action_response, agreement
from distill.evaluation.quality import lower_bound, quality_figures
from distill.evaluation.starts import Starts, held_out_starts
from world.actions import Actions
from world.card import Button
from world.checkpoint import World
from world.testing import CONFIGS, tiny_world

SIZE = 16


def _dataset(root: Path, lengths: list[int], dones: list[list[int]], *, continuing: bool = False) -> Dataset:
    """Write held-out streams: red is the stream number, green the frame number; buttons depend on the stream."""
    for stream, (num, ends) in enumerate(zip(lengths, dones, strict=True)):
        frames = np.zeros((num, SIZE, SIZE, 3), np.uint8)
        frames[..., 0] = stream
        frames[..., 1] = np.arange(num)[:, None, None]
        episode = Episode(
            frames=frames,
            buttons=np.full((num, 1), stream % 2 == 1),
            axes=np.full((num, 1), stream, np.float32),
            rewards=np.zeros(num, np.float32),
            dones=np.isin(np.arange(num), ends),
            oracle=np.zeros((num, 0), np.float32),
        )
        save_episode(root / "heldout" / f"episode_{stream:05d}.npz", episode)
    spec = EnvironmentSpec(
        name="numbers",
        title="",
        description="",
        fps=30,
        height=SIZE,
        width=SIZE,
        buttons=(Button(name="a", label="", keys=()),),
        continuing=continuing,
        data_license="",
    )
    write_dataset_json(root, spec, {})
    return Dataset.open(root)


def _numbers(starts: Starts) -> NDArray[np.int64]:
    return torch.cat([starts.context, starts.truth], 1)[:, :, 0, 0, 1].long().numpy()


def test_no_start_crosses_the_end_of_an_episode(tmp_path: Path) -> None:
    ends = [[40, 41, 70], [10, 90]]
    starts = held_out_starts(_dataset(tmp_path, [100, 100], ends), 200, 5, 12)
    for numbers, stream in zip(_numbers(starts), starts.episode, strict=True):
        assert numbers.tolist() == list(range(numbers[0], numbers[0] + 17))
        assert numbers[0] >= 1, "no action led to a stream's first frame"
        assert not set(numbers[:-1].tolist()) & set(ends[stream])
    assert np.array_equal(starts.context[:, 0, 0, 0, 0].numpy(), starts.episode)
    assert np.array_equal(starts.actions.axes[:, 0, 0].numpy(), starts.episode)
    assert len({int(n) for n in _numbers(starts)[:, 0]}) > 40, "starts are drawn at random places"


def test_starts_of_a_continuing_stream_may_cross_the_end_of_a_game(tmp_path: Path) -> None:
    starts = held_out_starts(_dataset(tmp_path, [30, 30], [[15], [15]], continuing=True), 20, 5, 20)
    assert all({15, 16} <= set(numbers.tolist()) for numbers in _numbers(starts))


def test_starts_from_short_streams_have_fewer_frames(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, [20, 24, 30, 8], [[], [], [], []])
    starts = held_out_starts(dataset, 12, 5, 64)
    assert starts.truth.shape[1] == 16  # half of the streams have 21 usable frames (the median of 19, 23, 29 and 7)
    assert set(starts.episode.tolist()) == {1, 2}, "streams that are too short are left out"
    with pytest.raises(DatasetError, match=r"have 21 frames .* at least 23, better 86, are needed: record longer"):
        held_out_starts(dataset, 12, 22, 64)


@pytest.mark.parametrize(("num", "streams"), [(256, 64), (7, 3), (5, 2), (2, 2)])
def test_shuffled_actions_always_come_from_another_stream(tmp_path: Path, num: int, streams: int) -> None:
    starts = held_out_starts(_dataset(tmp_path, [12] * streams, [[]] * streams), num, 3, 4)
    shuffled = starts.shuffled_actions()
    assert shuffled is not None
    assert (shuffled.axes[:, 0, 0].numpy() != starts.episode).all()


def test_with_a_single_stream_there_are_no_shuffled_actions(tmp_path: Path) -> None:
    starts = held_out_starts(_dataset(tmp_path, [40], [[]]), 6, 3, 4)
    assert starts.shuffled_actions() is None
    figures = quality_figures(starts.truth, starts.context[:, -1], copy_last(starts), None, starts.episode)
    assert "psnr" in figures
    assert not [name for name in figures if "other" in name]


def test_the_bound_accounts_for_the_correlation_of_clips_of_one_stream() -> None:
    """Forty streams of eight equal clips each are 40 observations, not 320."""
    streams = np.random.default_rng(0).normal(size=40)
    episode = np.arange(320) % 40
    bound = lower_bound(torch.from_numpy(streams[episode]), episode)
    assert abs(bound - (streams.mean() - 1.645 * streams.std() / 40**0.5)) < 0.03
    alone = lower_bound(torch.from_numpy(streams[episode]), np.arange(320))
    assert alone > bound + 0.1
    uneven = np.repeat(np.arange(3), [1, 2, 5])
    assert lower_bound(torch.full((8,), 2.0), uneven) == 2.0


def _clips(rng: np.random.Generator, num: int) -> NDArray[np.float64]:
    """Draw window means of a perfect world; they vary more between clips than within a clip."""
    return rng.normal(size=(num, 1, 4)) + 0.3 * rng.normal(size=(num, 10, 4))


def test_the_95th_percentile_of_a_perfect_worlds_drift_is_one() -> None:
    rng = np.random.default_rng(0)
    names = ("drift_brightness", "drift_contrast", "drift_sharpness", "drift_motion")
    ratios, codec = [], []
    for _ in range(400):
        real = _clips(rng, 48)
        figures = drift_figures(_clips(rng, 8), real, real[:8], draws=200)
        ratios += [figures[name] for name in names]
        codec += [figures[name.replace("drift", "drift_codec")] for name in names]
    assert 0.9 < np.quantile(ratios, 0.95) < 1.09
    assert 0.9 < np.quantile(codec, 0.95) < 1.09, "a perfect codec yields another batch of real clips"


def test_drift_separates_changes_by_the_world_from_changes_by_the_codec() -> None:
    rng = np.random.default_rng(0)
    real, generated = _clips(rng, 48), _clips(rng, 8)
    late, softer = np.zeros((10, 4)), np.array([0, 0, -3.0, 0])
    late[-1, 1] = 5.0
    figures = drift_figures(generated + late, real, real[:8] + softer)
    assert figures["drift_contrast"] == figures["drift_max"] > 3
    assert figures["drift_codec_sharpness"] == figures["drift_codec_max"] > 2
    assert figures["drift_codec_contrast"] < 1.5


def test_an_action_change_towards_a_stop_reached_by_one_paddle_does_not_count() -> None:
    """The emulator's paddle is free and moves down; the world's is at the bottom and correctly stays."""
    buttons = np.zeros((1, 12, 2), bool)
    buttons[0, 4:, 1] = True
    true_y = np.array([[50.0] * 4 + [53, 57, 62, 67, 72, 77, 82, 87]])
    stopped, free, wrong = np.full((1, 12), 88.0), true_y + 3, 2 * 50 - true_y
    stops = (20.0, 88.0)
    assert action_response(true_y, stopped, buttons) == 0.0
    assert np.isnan(action_response(true_y, stopped, buttons, stops=stops))
    assert action_response(true_y, free, buttons, stops=stops) == 1.0
    assert action_response(true_y, wrong, buttons, stops=stops) == 0.0
    assert action_response(true_y, np.full((1, 12), 21.0), buttons, stops=stops) == 0.0, "the other stop is no excuse"


def _pong(ball: tuple[int, int] | None, paddle: int) -> NDArray[np.uint8]:
    frame = np.zeros((96, 80, 3), np.uint8)
    frame[16:] = (144, 72, 17)
    frame[paddle - 4 : paddle + 4, 70:72] = (92, 186, 92)
    if ball:
        frame[ball[0] : ball[0] + 2, ball[1]] = 236
    return frame


def test_agreement_counts_every_lost_or_spurious_ball_and_every_error() -> None:
    def clips(*frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.stack(frames)[None]

    truth = clips(_pong((40, 30), 50), _pong((42, 32), 52), _pong(None, 54), _pong(None, 56))
    lost = clips(_pong(None, 50), _pong((42, 32), 52), _pong(None, 54), _pong(None, 56))
    ghost = clips(_pong((40, 30), 50), _pong((42, 32), 52), _pong((60, 40), 54), _pong(None, 56))
    frozen = np.repeat(truth[:, :1], 4, axis=1)
    assert agreement(truth, truth) == 1.0
    assert agreement(truth, lost) == pytest.approx((1 / 2 + 1) / 2)
    assert agreement(truth, ghost) == pytest.approx((2 / 3 + 1) / 2)
    paddle = np.mean([1 / (1 + rows * 64 / 96) for rows in (0, 2, 4, 6)])
    ball = (1 + 1 / (1 + np.hypot(2 * 64 / 80, 2 * 64 / 96))) / 4
    assert agreement(truth, frozen) == pytest.approx((ball + paddle) / 2, abs=1e-3)


def _starts(world: World, num: int, num_frames: int) -> Starts:
    rng = torch.Generator().manual_seed(0)
    size = (world.card.height, world.card.width, 3)
    context, axes = world.context_pixel_frames, len(world.card.axes)
    total = context + num_frames
    frames = torch.randint(0, 256, (num, total, *size), dtype=torch.uint8, generator=rng)
    actions = Actions(torch.rand(num, total, 2, generator=rng) < 0.5, torch.rand(num, total, axes, generator=rng))
    head, tail = actions.frames(0, context), actions.frames(context)
    oracle = np.zeros((num, num_frames, 0), np.float32)
    return Starts(frames[:, :context], head, frames[:, context:], tail, oracle, np.arange(num))


@pytest.mark.parametrize("config", sorted(CONFIGS))
@pytest.mark.parametrize("kind", ["student", "euler", "teacher"])
def test_generators_return_all_frames_and_depend_on_the_actions(kind: str, config: str) -> None:
    world = tiny_world(config=config)
    starts = _starts(world, 3, 14)
    make: dict[str, Generator] = {
        "student": student_generator(world),
        "euler": student_generator(world, num_steps=3, euler=True),
        "teacher": teacher_generator(world, num_steps=3, shift=2.0),
    }
    frames = in_batches(make[kind], starts, starts.actions, size=2)
    assert frames.shape == starts.truth.shape
    assert frames.dtype == torch.uint8
    assert frames.device.type == "cpu"
    again = in_batches(make[kind], starts, starts.actions, size=2)
    assert torch.equal(frames, again)
    chunk = world.chunk_pixel_frames
    late = Actions(starts.actions.buttons.clone(), starts.actions.axes)
    late.buttons[:, chunk:] ^= True
    changed = in_batches(make[kind], starts, late, size=2)
    assert not torch.equal(changed[:, chunk:], frames[:, chunk:])
    if kind != "teacher":
        assert torch.equal(changed[:, :chunk], frames[:, :chunk]), "a frame depends only on its past"


def test_euler_steps_use_the_same_network_in_another_sampler() -> None:
    world = tiny_world()
    starts = _starts(world, 2, 6)
    frames = {
        (steps, euler): in_batches(student_generator(world, num_steps=steps, euler=euler), starts, starts.actions)
        for steps in (1, 3)
        for euler in (False, True)
    }
    assert torch.equal(frames[1, False], frames[1, True]), "with one step both samplers are the same"
    assert not torch.equal(frames[3, False], frames[3, True])
    assert not torch.equal(frames[3, True], frames[1, True])
    assert world.sampler == tiny_world().sampler, "the world itself is unchanged"


@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_reconstruction_of_long_clips_in_pieces_agrees_with_the_codec(config: str) -> None:
    world = tiny_world(config=config)
    frames = torch.randint(0, 256, (2, 260, 32, 32, 3), dtype=torch.uint8)
    rebuilt = reconstruct(world, frames)
    num = 260 - 259 % world.codec.temporal_patch
    assert rebuilt.shape == (2, num, 32, 32, 3)
    latents, _ = world.encode(frames[:1, :num])
    at_once = world.decode(latents, world.codec.initial_state(1))[0]
    assert (at_once.int() - rebuilt[:1].int()).abs().max() <= 1
