"""What a world keeps track of beyond its pictures. Owns how numbers become channels of a latent, and how a rollout
carries them on; knows no network.

A causal model with a short window forgets where it stands once the picture no longer shows it: before a wall, any room
may be behind. So a latent can have channels for numbers such as a position: sine and cosine of a few periods, which say
where it is, and its change since the frame before, which says it far more finely than a network can copy a number.
A rollout adds up the changes and lets what the network says of the place itself correct them slowly.
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
"""How much of a frame's own word on the place goes into the place: the rest is the place before, moved on."""

SURE = math.sqrt(0.5)
"""Amplitude under which a wave stands for more than one place: a mean over several possible ones is shorter than √2."""

CANDIDATES = 32
"""Values a shortest period that are tried where a number is in doubt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateVariable:
    """A number to keep track of, in units of its own.

    periods: of its waves; the longest spans its range, and a change is at most half of it; the shortest its detail.
    step: a usual change from frame to frame.
    """

    name: str
    periods: tuple[float, ...]
    step: float

    def __post_init__(self) -> None:
        if not self.periods or min(self.periods) <= 0 or self.step <= 0:
            raise ShapeError(f"{self.name}: periods {self.periods} and step {self.step} must all be above 0")


def state_variables_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[StateVariable, ...]:
    """What `dataclasses.asdict` and JSON made of them, as they were."""
    return tuple(StateVariable(**{**entry, "periods": tuple(entry["periods"])}) for entry in entries)


def num_channels(state_variables: Sequence[StateVariable]) -> int:
    return 2 * num_waves(state_variables) + len(state_variables)


def num_waves(state_variables: Sequence[StateVariable]) -> int:
    return sum(len(one.periods) for one in state_variables)


def to_channels(state_variables: Sequence[StateVariable], values: Tensor) -> Tensor:
    """Numbers `t n`, frame by frame, as channels of about unit variance, float32 `t k`: for each number and period sine
    and cosine, then every number's change in steps, at most 4 of them (0 for the first frame)."""
    waves, changes = [], []
    for one, value in zip(state_variables, values.double().unbind(-1), strict=True):
        for period in one.periods:
            angle = 2 * math.pi * value / period
            waves += [math.sqrt(2) * angle.sin(), math.sqrt(2) * angle.cos()]
        longest = max(one.periods)
        change = torch.diff(value, prepend=value[:1])
        wrapped = torch.remainder(change + longest / 2, longest) - longest / 2
        changes.append((wrapped / one.step).clamp(-4, 4))
    return torch.stack([*waves, *changes], dim=-1).float()


def advance_state_channels(state_variables: Sequence[StateVariable], before: Tensor, now: Tensor) -> Tensor:
    """Channels `b k` that follow `before`, as a rollout keeps them: its waves moved on by the change that `now` tells,
    and drawn to those that `now` tells. A number that is in doubt becomes the likeliest of what `now` tells; so every
    wave has full amplitude, or each frame's small doubt would add to the doubts before.
    """
    num = num_waves(state_variables)
    told, changes = now[:, : 2 * num].unflatten(1, (num, 2)), now[:, 2 * num :]
    waves, first = [], 0
    for column, one in enumerate(state_variables):
        own = slice(first, first := first + len(one.periods))
        angle = changes[:, column, None] * changes.new_tensor([2 * math.pi * one.step / p for p in one.periods])
        sine, cosine = before[:, : 2 * num].unflatten(1, (num, 2))[:, own].unbind(-1)
        moved = torch.stack(
            [sine * angle.cos() + cosine * angle.sin(), cosine * angle.cos() - sine * angle.sin()], dim=-1
        )
        drawn = torch.lerp(moved, told[:, own], GAIN)
        amplitude = drawn.norm(dim=-1, keepdim=True)
        doubtful = (amplitude < SURE).any(dim=1, keepdim=True)
        certain = drawn * (math.sqrt(2) / amplitude.clamp_min(1e-6))
        waves.append(torch.where(doubtful, _likeliest(one, told[:, own]), certain))
    return torch.cat([torch.cat(waves, dim=1).flatten(1), changes], dim=1)


def _likeliest(one: StateVariable, waves: Tensor) -> Tensor:
    """Of all values of a number, the waves `b p 2` nearest to these, which may be a mean over several values: one
    where many agree, not one between."""
    channels = _candidates(one, waves.device, waves.dtype)
    best = (waves.flatten(1) @ channels.T).argmax(dim=1)
    return channels[best].view_as(waves)


@cache
def _candidates(one: StateVariable, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The waves `n 2p` of the values that are tried."""
    longest, shortest = max(one.periods), min(one.periods)
    with torch.inference_mode(False):  # kept, and used outside of it too
        values = torch.arange(0, longest, shortest / CANDIDATES, dtype=torch.float64)
        return to_channels((one,), values[:, None])[:, :-1].to(device, dtype)
