"""Schedules for the decay of a moving average. Pure functions of the step, which counts from 0."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Power:
    """Weights grow as a power of time, so that the average spans the same share of a run of any length (EDM2,
    arXiv:2312.02696, eq. 5 to 7): the decay is (1 − 1/t)^(γ + 1). As the standard deviation of the weights, γ = 6.94
    spans 10 % of the run, and γ = 16.97 spans 5 %."""

    gamma: float = 6.94

    def decay(self, step: int) -> float:
        """Return the decay at a step."""
        return float((1 - 1 / (step + 1)) ** (self.gamma + 1))


@dataclass(frozen=True, slots=True)
class HalfLife:
    """The weight of a value halves every `steps` steps. ramp: early in a run the half-life is this share of the steps
    so far instead (EDM, arXiv:2206.00364, code: 0.05); None for a constant half-life."""

    steps: float
    ramp: float | None = 0.05

    def decay(self, step: int) -> float:
        """Return the decay at a step."""
        half_life = self.steps if self.ramp is None else min(self.steps, self.ramp * (step + 1))
        return float(0.5 ** (1 / max(half_life, 1e-8)))


def decay_at(step: int, schedule: float | Power | HalfLife) -> float:
    """Return the decay at a step. A constant decay is approached from below, with (1 + step)/(10 + step), so that the
    initial weights are soon forgotten."""
    return min(schedule, (1 + step) / (10 + step)) if isinstance(schedule, float) else schedule.decay(step)
