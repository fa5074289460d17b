"""The codec: causal, stateful, equal in pieces and as a whole."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.world.definitions import assert_within
from world import ShapeError, World
from world.codecs.convolutional import ConvolutionalCodec, ConvolutionalCodecConfig, with_state_channels
from world.codecs.pixels import to_float, to_uint8
from world.codecs.state_channels import StateVariable, advance_state_channels
from world.testing import CONFIGS

NUM_LATENTS = 6
STATE_VARIABLES = (StateVariable(name="angle", periods=(360.0,), step=5.0),)


@pytest.fixture
def codec(config_name: str) -> ConvolutionalCodec:
    torch.manual_seed(0)
    codec = ConvolutionalCodec(CONFIGS[config_name][0])
    with torch.no_grad():
        codec.latent_mean.normal_(0, 0.1)
        codec.latent_std.uniform_(0.05, 0.2)
        codec.position.normal_()
    return codec.eval()


def _clip(codec: ConvolutionalCodec, batch: int = 2) -> torch.Tensor:
    """Return a random clip of `NUM_LATENTS` latents from a stream's start: `b t 3 h w` in [−1, 1]."""
    generator = torch.Generator().manual_seed(0)
    num = 1 + (NUM_LATENTS - 1) * codec.temporal_patch
    return torch.rand(batch, num, 3, codec.config.height, codec.config.width, generator=generator) * 2 - 1


def _latents(codec: ConvolutionalCodec, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, NUM_LATENTS, *codec.config.latent_shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_clip_of_1_plus_k_patches_has_1_plus_k_latents(codec: ConvolutionalCodec) -> None:
    frames = _clip(codec)
    latents, state = codec.encode(frames)
    assert latents.shape == (2, NUM_LATENTS, *codec.config.latent_shape)
    assert codec.num_latents(frames.shape[1]) == NUM_LATENTS
    decoded, after = codec.decode(latents, codec.initial_state(2))
    assert decoded.shape == frames.shape
    assert state.keys() == after.keys()
    for name in state:
        assert torch.equal(state[name], after[name]), (
            "encoding and decoding the same latents should end in the same state"
        )


@torch.no_grad()
def test_state_channels_are_estimated_from_the_picture_and_not_decoded(config_name: str) -> None:
    torch.manual_seed(0)
    codec = ConvolutionalCodec(replace(CONFIGS[config_name][0], state_variables=STATE_VARIABLES)).eval()
    assert codec.state_estimator is not None
    latents, state = codec.encode(_clip(codec))
    assert latents.shape[2:] == codec.config.latent_shape
    picture, state_variables = latents[:, :, :-3], latents[:, :, -3:]
    assert torch.equal(picture, codec.encode_picture(_clip(codec)))
    before = picture[:, [0, *range(NUM_LATENTS - 1)]]
    estimate = codec.state_estimator(torch.cat([before, picture], dim=2))
    assert torch.equal(state_variables, estimate[..., None, None].expand_as(state_variables))
    other = with_state_channels(picture, torch.randn(2, NUM_LATENTS, 3))
    assert torch.equal(codec.with_estimated_state(other), latents)
    for start in (codec.initial_state(2), state):
        assert torch.equal(codec.decode(latents, start)[0], codec.decode(other, start)[0])


@torch.no_grad()
def test_a_codec_advances_its_state_channels_equally_at_all_positions(config_name: str) -> None:
    codec = ConvolutionalCodec(replace(CONFIGS[config_name][0], state_variables=STATE_VARIABLES)).eval()
    latents = _latents(codec)
    before, new = latents[:, 0], latents[:, 1:]
    advanced = codec.advance_state_channels(before, new)
    assert torch.equal(advanced[:, :, :-3], new[:, :, :-3])
    expected = before[:, -3:].mean((2, 3))
    for frame in range(new.shape[1]):
        expected = advance_state_channels(STATE_VARIABLES, expected, new[:, frame, -3:].mean((2, 3)))
        assert_within(advanced[:, frame, -3:], expected[:, :, None, None].expand_as(advanced[:, frame, -3:]), 1e-6)
    bare = ConvolutionalCodec(CONFIGS[config_name][0])
    assert bare.advance_state_channels(before, new) is new


@torch.no_grad()
def test_differences_within_a_grey_level_are_decoded_as_the_background(codec: ConvolutionalCodec) -> None:
    codec.background.uniform_(-1, 1)
    weight, bias = codec.decoder[-1].parameters()
    weight.zero_()
    for grey_levels, expected in ((0.9, 0.0), (-0.9, 0.0), (5.0, 4.0), (-5.0, -4.0)):
        bias.fill_(grey_levels / 127.5)
        decoded, _ = codec.decode(_latents(codec), codec.initial_state(2))
        assert_within(decoded - codec.background, torch.full_like(decoded, expected / 127.5), 1e-6)


def test_a_pixel_within_the_dead_zone_still_learns(codec: ConvolutionalCodec) -> None:
    weight, bias = codec.decoder[-1].parameters()
    torch.nn.init.zeros_(weight)
    torch.nn.init.zeros_(bias)
    decoded, _ = codec.decode(_latents(codec), codec.initial_state(2))
    assert not decoded.any()
    decoded.sum().backward()
    assert bias.grad is not None
    assert bool((bias.grad != 0).all())


@pytest.mark.parametrize("sizes", [[1] * NUM_LATENTS, [1, 2, 3], [4, 2]], ids=str)
@torch.no_grad()
def test_decoding_in_pieces_equals_decoding_whole(codec: ConvolutionalCodec, sizes: list[int]) -> None:
    latents = _latents(codec)
    together, together_state = codec.decode(latents, codec.initial_state(2))
    state, pieces = codec.initial_state(2), []
    for piece in latents.split(sizes, dim=1):
        frames, state = codec.decode(piece, state)
        pieces.append(frames)
    assert_within(torch.cat(pieces, 1), together, 1e-5)
    assert all(torch.equal(state[name], together_state[name]) for name in together_state)


@torch.no_grad()
def test_decoding_after_an_encoded_clip_continues_from_its_last_latent(codec: ConvolutionalCodec) -> None:
    latents, state = codec.encode(_clip(codec))
    later = _latents(codec)
    expected, _ = codec.decode(torch.cat([latents, later], 1), codec.initial_state(2))
    assert_within(codec.decode(later, state)[0], expected[:, -NUM_LATENTS * codec.temporal_patch :], 1e-5)


@torch.no_grad()
def test_a_later_frame_changes_its_latent_and_no_earlier_one(codec: ConvolutionalCodec) -> None:
    p, frames = codec.temporal_patch, _clip(codec)
    before = codec.encode(frames)[0]
    for changed_frame in (0, 1, frames.shape[1] - 1):
        changed = frames.clone()
        changed[:, changed_frame] *= -1
        after = codec.encode(changed)[0]
        own = (changed_frame + p - 1) // p
        assert [i for i in range(NUM_LATENTS) if not torch.equal(before[:, i], after[:, i])] == [own]


@torch.no_grad()
def test_a_later_latent_changes_no_earlier_frame(codec: ConvolutionalCodec) -> None:
    p, latents = codec.temporal_patch, _latents(codec)
    before, _ = codec.decode(latents, codec.initial_state(2))
    changed = latents.clone()
    changed[:, 3] += 1.0
    after, _ = codec.decode(changed, codec.initial_state(2))
    differs = [i for i in range(before.shape[1]) if not torch.equal(before[:, i], after[:, i])]
    first = 1 + 2 * p  # latent 0 decodes to one frame, each later one to p
    reach = p if p == 1 else 2 * p  # a temporal decoder also sees the latent before
    assert differs == list(range(first, first + reach))


@torch.no_grad()
def test_latents_are_centred_scaled_and_bounded(codec: ConvolutionalCodec) -> None:
    frames = _clip(codec)
    raw = codec.raw_features(frames)
    latents = codec.encode(frames)[0]
    bound = codec.config.bound
    assert latents.abs().max() <= bound
    linear = (raw - codec.latent_mean) / codec.latent_std
    assert_within(bound * torch.atanh(latents.double() / bound).float(), linear.clamp(-20, 20), 1e-2)
    assert_within(codec.normalise(codec.latent_mean.expand_as(raw)), torch.zeros_like(raw), 0)


def test_sessions_at_a_stream_s_start_cannot_decode_with_others() -> None:
    codec = ConvolutionalCodec(CONFIGS["wan"][0])
    fresh, running = codec.initial_state(1), codec.encode(_clip(codec, 1))[1]
    mixed = {name: torch.cat([fresh[name], running[name]]) for name in fresh}
    with pytest.raises(ShapeError, match="decode them in a separate call"):
        codec.decode(_latents(codec), mixed)


def test_shapes_that_do_not_fit_are_reported(codec: ConvolutionalCodec) -> None:
    with pytest.raises(ShapeError, match=r"\(3, 32, 48\), this codec takes \(3, 32, 32\)"):
        codec.encode(torch.zeros(1, 1, 3, 32, 48))
    with pytest.raises(ShapeError, match="30x32"):
        ConvolutionalCodecConfig(height=30, width=32)
    with pytest.raises(ShapeError, match="0 frames"):
        codec.encode(torch.zeros(1, 0, 3, 32, 32))
    if codec.temporal_patch > 1:
        with pytest.raises(ShapeError, match=r"2 frames: a clip needs 1 \+ 4·k"):
            codec.encode(torch.zeros(1, 2, 3, 32, 32))


@given(grey=st.integers(0, 255))
def test_every_grey_level_survives_a_round_trip(grey: int) -> None:
    frames = torch.full((1, 1, 2, 3, 3), grey, dtype=torch.uint8)
    there = to_float(frames)
    assert there.shape == (1, 1, 3, 2, 3)
    assert -1 <= float(there.min()) <= float(there.max()) <= 1
    assert torch.equal(to_uint8(there), frames)


def test_frames_out_of_range_are_clipped_and_not_wrapped() -> None:
    frames = torch.tensor([-3.0, -1.0, 1.0, 3.0]).view(1, 4, 1, 1, 1).expand(1, 4, 3, 1, 1)
    assert to_uint8(frames)[0, :, 0, 0, 0].tolist() == [0, 0, 255, 255]


def test_a_rollout_s_codec_state_belongs_to_its_slot(world: World) -> None:
    start = world.starts[0]
    rollout = world.rollout(2)
    rollout.start([1], start.frames[None], start.actions, [0])
    for _ in range(2):
        latents = rollout.step_latents(world.actions([]), [1])
        rollout.decode(latents, [1])
        codec = rollout.snapshot(1).codec
        assert set(codec) == set(world.codec.initial_state(1))
        if codec:
            assert torch.equal(codec["previous"], latents[:, -1])
