"""State variables: numbers that a picture does not show. Owns their encoding as channels of a latent, and how a rollout
advances them; knows no network.

A causal model with a short window forgets its position once the picture no longer shows it: facing a wall, it could be
in any room. So a latent can have channels for numbers such as a position: sine and cosine of several periods, which
encode the value, and its change since the frame before, which is far more precise than a network can copy a number.
A rollout integrates the changes and lets the network's own prediction of the value correct the sum slowly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from world.errors import ShapeError

GAIN = 0.1
"""Weight of a frame's own prediction of the value; the rest is the value before plus the change."""

CERTAIN = math.sqrt(0.5)
"""A wave with a smaller amplitude stands for several possible values: their mean is shorter than √2."""

CANDIDATES = 32
"""How many values per shortest period are tried if a number is uncertain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateVariable:
    """A number that a world remembers beyond its pictures, in any unit.

    periods: of its waves. The longest spans its range, and a change is at most half of it; the shortest sets the
    resolution. step: a typical change from frame to frame.
    """

    name: str
    periods: tuple[float, ...]
    step: float

    def __post_init__(self) -> None:
        if not self.periods or min(self.periods) <= 0 or self.step <= 0:
            raise ShapeError(f"{self.name}: periods {self.periods} and step {self.step} must all be above 0")


def state_variables_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[StateVariable, ...]:
    """Read state variables from what `dataclasses.asdict` and JSON made of them."""
    return tuple(StateVariable(**{**entry, "periods": tuple(entry["periods"])}) for entry in entries)


def num_channels(state_variables: Sequence[StateVariable]) -> int:
    """Return how many channels of a latent they take: two per wave, one per variable."""
    return 2 * num_waves(state_variables) + len(state_variables)


def num_waves(state_variables: Sequence[StateVariable]) -> int:
    return sum(len(variable.periods) for variable in state_variables)


def to_channels(state_variables: Sequence[StateVariable], values: Tensor) -> Tensor:
    """Encode numbers `t n`, frame by frame, as channels of about unit variance, float32 `t k`: sine and cosine for each
    number and period, then each number's change in steps, clamped to ±4 (0 for the first frame)."""
    waves, changes = [], []
    for variable, value in zip(state_variables, values.double().unbind(-1), strict=True):
        for period in variable.periods:
            angle = 2 * math.pi * value / period
            waves += [math.sqrt(2) * angle.sin(), math.sqrt(2) * angle.cos()]
        longest = max(variable.periods)
        change = torch.diff(value, prepend=value[:1])
        wrapped = torch.remainder(change + longest / 2, longest) - longest / 2
        changes.append((wrapped / variable.step).clamp(-4, 4))
    return torch.stack([*waves, *changes], dim=-1).float()


def advance_state_channels(state_variables: Sequence[StateVariable], before: Tensor, now: Tensor) -> Tensor:
    """Return the channels `b k` that follow `before` in a rollout: its waves, rotated by the change in `now` and drawn
    towards the waves in `now`. An uncertain number is set to the most likely value according to `now`. So every wave
    has full amplitude; otherwise the small uncertainty of each frame would accumulate.
    """
    num = num_waves(state_variables)
    predicted, changes = now[:, : 2 * num].unflatten(1, (num, 2)), now[:, 2 * num :]
    waves, first = [], 0
    for column, variable in enumerate(state_variables):
        columns = slice(first, first := first + len(variable.periods))
        angle = changes[:, column, None] * changes.new_tensor(
            [2 * math.pi * variable.step / p for p in variable.periods]
        )
        sine, cosine = before[:, : 2 * num].unflatten(1, (num, 2))[:, columns].unbind(-1)
        rotated = torch.stack(
            [sine * angle.cos() + cosine * angle.sin(), cosine * angle.cos() - sine * angle.sin()], dim=-1
        )
        drawn = torch.lerp(rotated, predicted[:, columns], GAIN)
        amplitude = drawn.norm(dim=-1, keepdim=True)
        uncertain = (amplitude < CERTAIN).any(dim=1, keepdim=True)
        scaled = drawn * (math.sqrt(2) / amplitude.clamp_min(1e-6))
        waves.append(torch.where(uncertain, _most_likely(variable, predicted[:, columns]), scaled))
    return torch.cat([torch.cat(waves, dim=1).flatten(1), changes], dim=1)


def _most_likely(variable: StateVariable, waves: Tensor) -> Tensor:
    """Return the waves `b p 2` of the single value nearest to these waves, which may be a mean over several values: a
    value on which many agree, not one in between."""
    channels = _candidates(variable, waves.device, waves.dtype)
    best = (waves.flatten(1) @ channels.T).argmax(dim=1)
    return channels[best].view_as(waves)


@cache
def _candidates(variable: StateVariable, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the waves `n 2p` of the values to try."""
    longest, shortest = max(variable.periods), min(variable.periods)
    with torch.inference_mode(False):  # cached, and used outside of inference mode too
        values = torch.arange(0, longest, shortest / CANDIDATES, dtype=torch.float64)
        return to_channels((variable,), values[:, None])[:, :-1].to(device, dtype)
