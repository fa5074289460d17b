"""State variables: numbers as channels, and how a rollout advances them."""

import math
from itertools import pairwise

import pytest
import torch

from world.codecs.state_channels import CERTAIN, GAIN, StateVariable, advance_state_channels, num_channels, to_channels
from world.errors import ShapeError

ANGLE = StateVariable(name="angle", periods=(360.0, 90.0), step=5.0)
POSITION = StateVariable(name="x", periods=(64.0,), step=2.0)
BOTH = (POSITION, ANGLE)


def _advanced(state_variables: tuple[StateVariable, ...], before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    return advance_state_channels(state_variables, before[None], now[None])[0]


def test_numbers_are_encoded_as_sines_cosines_and_changes() -> None:
    values = torch.tensor([[0.0, 355.0], [16.0, 0.0], [17.0, 22.5]])
    channels = to_channels(BOTH, values)
    assert channels.shape == (3, num_channels(BOTH))
    x, coarse, fine, changes = channels.split([2, 2, 2, 2], dim=1)
    r = math.sqrt(2)
    assert torch.allclose(x[:2], torch.tensor([[0, r], [r, 0]]), atol=1e-6)
    assert torch.allclose(coarse[1], torch.tensor([0, r]), atol=1e-6)
    assert torch.allclose(fine[2], torch.tensor([r, 0]), atol=1e-6), "a quarter of the fine period"
    expected = torch.tensor([[0.0, 0.0], [4.0, 1.0], [0.5, 4.0]])
    assert torch.allclose(changes, expected), "in steps, clamped to 4, by the shorter way round"
    turns = torch.arange(360.0)[:, None]
    assert torch.allclose(to_channels((ANGLE,), turns)[:, :4].square().mean(0), torch.ones(4), atol=1e-5)


def test_true_changes_advance_true_numbers() -> None:
    values = torch.stack([torch.linspace(3, 60, 50), 20 * torch.linspace(0, 9, 50).sin()], dim=1)
    channels = to_channels(BOTH, values)
    state = channels[0]
    for now in channels[1:]:
        old_value = torch.cat([state[:6], now[6:]])  # predicts the old value and the true change
        predicted = _advanced(BOTH, state, old_value)
        state = _advanced(BOTH, state, now)
        assert torch.allclose(state, now, atol=1e-5)
        assert (predicted[:6] - now[:6]).abs().max() < 2 * GAIN


def test_a_frame_s_prediction_corrects_the_value_slowly() -> None:
    truth, wrong = to_channels((ANGLE,), torch.tensor([[40.0], [20.0]])).unbind()
    truth[-1] = wrong[-1] = 0.0
    state, errors = wrong, []
    for _ in range(30):
        state = _advanced((ANGLE,), state, truth)
        errors.append(float((state - truth).norm()))
    assert all(b < a for a, b in pairwise(errors))
    assert errors[0] > 0.8 * float((wrong - truth).norm())
    assert errors[-1] < 0.1 * errors[0]


def test_nearly_certain_values_become_certain() -> None:
    waves = to_channels((ANGLE,), torch.tensor([[70.0]]))
    state = advance_state_channels((ANGLE,), 0.6 * waves, 0.6 * waves)
    assert torch.allclose(state[:, :4], waves[:, :4], atol=1e-6)


def test_an_ambiguous_value_becomes_the_most_likely_one_and_none_in_between() -> None:
    """A mean over headings 30 (of weight 0.5), 120, 210 and 300: a room whose walls look alike."""
    values = torch.tensor([30.0, 120.0, 210.0, 300.0])
    mean = torch.tensor([0.5, 0.2, 0.2, 0.1]) @ to_channels((ANGLE,), values[:, None])
    mean[-1] = 0.0
    assert mean[:2].norm() < CERTAIN
    state = _advanced((ANGLE,), mean, mean)
    assert torch.allclose(state[:4], to_channels((ANGLE,), values[:1, None])[0, :4], atol=0.15)
    certain = to_channels((ANGLE,), torch.tensor([[120.0]]))[0]
    certain[-1] = 0.0
    stays = _advanced((ANGLE,), certain, mean)
    assert (stays[:4] - certain[:4]).norm() < 0.4, "one uncertain frame should not move a certain value"


@pytest.mark.parametrize(("periods", "step"), [((), 1.0), ((90.0, -1.0), 1.0), ((90.0,), 0.0)])
def test_invalid_state_variables_are_rejected(periods: tuple[float, ...], step: float) -> None:
    with pytest.raises(ShapeError, match=r"angle: periods .* and step .* must all be above 0"):
        StateVariable(name="angle", periods=periods, step=step)
