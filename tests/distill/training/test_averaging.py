"""Moving averages have the weights that their schedules promise."""

from __future__ import annotations

import math

import pytest

from distill.training.averaging import HalfLife, Power, decay_at


def weights(schedule: float | Power | HalfLife, num_steps: int) -> list[float]:
    """Return the weight of each step's value in the final average."""
    counts: list[float] = []
    for step in range(num_steps):
        decay = decay_at(step, schedule)
        counts = [count * decay for count in counts] + [1 - decay]
    return counts


@pytest.mark.parametrize(("gamma", "share"), [(6.94, 0.10), (16.97, 0.05)])
@pytest.mark.parametrize("num_steps", [1000, 4000])
def test_power_spans_the_same_share_of_any_run(gamma: float, share: float, num_steps: int) -> None:
    counts = weights(Power(gamma), num_steps)
    assert sum(counts) == pytest.approx(1.0)
    times = [(step + 1) / num_steps for step in range(num_steps)]
    mean = sum(count * time for count, time in zip(counts, times, strict=True))
    spread = math.sqrt(sum(count * (time - mean) ** 2 for count, time in zip(counts, times, strict=True)))
    assert spread == pytest.approx(share, rel=0.02)
    assert counts[-1] / counts[num_steps // 2 - 1] == pytest.approx(2**gamma, rel=0.05)


def test_weights_halve_in_a_half_life_which_is_shorter_at_first() -> None:
    counts = weights(HalfLife(50.0, ramp=None), 400)
    assert counts[300] / counts[350] == pytest.approx(0.5)
    assert HalfLife(50.0).decay(99) == pytest.approx(0.5 ** (1 / 5))
    assert HalfLife(50.0).decay(5000) == pytest.approx(0.5 ** (1 / 50))


def test_a_constant_decay_soon_forgets_the_initial_weights() -> None:
    assert 1 - sum(weights(0.999, 100)) < 1e-6
    assert decay_at(100_000, 0.999) == 0.999
