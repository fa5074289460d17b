"""The codec's loss, and its background from the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.codec.losses import DECODER_LOSS, CodecLossConfig, reconstruction_loss
from distill.codec.tasks import fix_background
from distill.data.clips import Dataset
from distill.data.collect import CollectConfig, collect
from world.codecs.convolutional import ConvolutionalCodec, ConvolutionalCodecConfig
from world.codecs.pixels import to_uint8

GREY_LEVEL = 1 / 127.5
FIELD = torch.full((3, 48, 48), -0.5)


def ball_clip() -> torch.Tensor:
    """Return two frames `1 2 3 48 48` of a field in which one bright pixel moves by one."""
    frames = FIELD.expand(1, 2, 3, 48, 48).clone()
    frames[:, 0, :, 20, 20] = frames[:, 1, :, 20, 21] = 0.8
    return frames


def cost(config: CodecLossConfig, row: int, column: int, amount: float = 0.5) -> float:
    """Return the loss of an error of `amount` at one pixel of the second frame."""
    decoded = ball_clip()
    decoded[:, 1, :, row, column] += amount
    return float(reconstruction_loss(decoded, ball_clip(), FIELD, config))


def test_an_error_costs_most_where_the_picture_changes_and_more_around_it() -> None:
    config = replace(DECODER_LOSS, flicker_weight=0.0, foreground_weight=0.0)
    far, near, moving = cost(config, 2, 2), cost(config, 20, 24), cost(config, 20, 21)
    assert near / far == pytest.approx(1 + config.near_weight)
    assert moving / far == pytest.approx(1 + config.near_weight + config.change_weight)
    joint = CodecLossConfig()
    assert cost(joint, 20, 24) == pytest.approx(cost(joint, 2, 2)), "joint training gives no weight to the surroundings"


def test_an_error_at_a_thing_at_rest_costs_more_than_in_the_background() -> None:
    frames = FIELD.expand(1, 2, 3, 48, 48).clone()
    frames[..., 5, 5] = 0.8  # stands still
    config = replace(DECODER_LOSS, flicker_weight=0.0)
    costs = []
    for column in (5, 30):
        decoded = frames.clone()
        decoded[..., 5, column] += 0.5
        costs.append(float(reconstruction_loss(decoded, frames, FIELD, config)))
    assert costs[0] / costs[1] == pytest.approx(1 + config.foreground_weight)


def test_errors_below_rounding_cost_nothing() -> None:
    assert cost(DECODER_LOSS, 2, 2, 0.99 * DECODER_LOSS.tolerance * GREY_LEVEL) == 0.0
    assert cost(DECODER_LOSS, 2, 2, 1.5 * DECODER_LOSS.tolerance * GREY_LEVEL) > 0.0


def test_displaced_texture_costs_less_than_none_only_with_a_texture_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = 0.2 * torch.randn(1, 2, 3, 48, 48, generator=generator)
    displaced, none = frames.roll(1, dims=4), torch.zeros_like(frames)
    plain = replace(DECODER_LOSS, near_weight=0.0, foreground_weight=0.0, change_weight=0.0)
    for config, better in ((plain, False), (replace(plain, texture_weight=4.0), True)):
        costs = [float(reconstruction_loss(clip, frames, FIELD, config)) for clip in (displaced, none)]
        assert (costs[0] < costs[1]) is better


def test_a_still_texture_costs_more_than_a_moving_one_where_the_true_one_moves() -> None:
    frames = 0.2 * torch.randn(1, 4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    displaced = frames.roll(1, dims=4)
    still = displaced[:, :1].expand_as(frames)
    plain = replace(DECODER_LOSS, near_weight=0.0, foreground_weight=0.0, change_weight=0.0, flicker_weight=0.0)
    costs = {
        weight: [
            float(reconstruction_loss(clip, frames, FIELD, replace(plain, texture_weight=weight)))
            for clip in (displaced, still)
        ]
        for weight in (0.0, 4.0)
    }
    assert costs[0.0][0] == pytest.approx(costs[0.0][1], rel=0.05), "the error alone does not distinguish them"
    assert costs[4.0][1] > 1.5 * costs[4.0][0]


def test_flicker_has_an_extra_cost_and_a_steady_error_does_not() -> None:
    steady = ball_clip() + 0.1
    calm = replace(DECODER_LOSS, flicker_weight=0.0)
    with_flicker, without = (float(reconstruction_loss(steady, ball_clip(), FIELD, c)) for c in (DECODER_LOSS, calm))
    assert with_flicker == pytest.approx(without)
    assert cost(DECODER_LOSS, 2, 2) > cost(calm, 2, 2)


def test_the_background_is_the_median_picture(tmp_path: Path) -> None:
    collect(
        tmp_path, CollectConfig(environment="bouncer", num_train=3, num_heldout=1, frames_per_stream=60), quiet=True
    )
    dataset = Dataset.open(tmp_path)
    spec = dataset.spec
    codec = ConvolutionalCodec(ConvolutionalCodecConfig(height=spec.height, width=spec.width, widths=(8, 8, 8)))
    fix_background(codec, dataset, per_episode=60)
    frames = np.concatenate([episode.frames for episode in dataset.episodes("train")])
    shown = to_uint8(codec.background[None, None])[0, 0].numpy()
    assert np.abs(shown.astype(float) - np.median(frames, axis=0)).max() <= 0.5
