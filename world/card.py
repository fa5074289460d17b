"""A world's description of itself. Owns the card and its JSON form; knows no tensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from world.errors import CheckpointError, RangeError
from world.numbers import checked, checked_count

MAX_FPS = 240.0
MAX_SIDE = 8192
"""Pixels of a picture's longer side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Button:
    """A named button. keys: the DOM `KeyboardEvent.code` values that press it."""

    name: str
    label: str
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A named continuous control in [low, high]. source: what drives it, such as "mouse_x"."""

    name: str
    label: str
    low: float
    high: float
    source: str = ""

    def __post_init__(self) -> None:
        checked(self.low, f"low of the axis {self.name}")
        checked(self.high, f"high of the axis {self.name}")
        if not self.low < self.high:
            raise RangeError(f"axis {self.name}: low {self.low:g} must be below high {self.high:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldCard:
    """A world's public description for players, clients and readers of its license.

    pixelated: its frames consist of blocks and should be enlarged with hard edges. statistics: brightness, contrast,
    sharpness and motion of real frames in grey levels, each as the mean over stretches of two seconds and the standard
    deviation between such stretches.
    """

    name: str
    title: str
    description: str
    fps: float
    height: int
    width: int
    buttons: tuple[Button, ...]
    axes: tuple[Axis, ...] = ()
    exclusive_buttons: bool = False
    chunk_frames: int = 1
    window: int = 15
    sink: int = 0
    num_steps: int = 2
    pixelated: bool = False
    data_license: str
    statistics: dict[str, tuple[float, float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked(self.fps, "fps", 0.1, MAX_FPS)
        for side in ("height", "width"):
            checked_count(getattr(self, side), side, 1, MAX_SIDE)
        for count, least in (("chunk_frames", 1), ("window", 0), ("sink", 0), ("num_steps", 1)):
            checked_count(getattr(self, count), count, least)
        for controls in (self.buttons, self.axes):
            names = [control.name for control in controls]
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise RangeError(f"{', '.join(repeated)}: the card names it more than once")
        for name, numbers in self.statistics.items():
            for number in numbers:
                checked(number, f"statistics of {name}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> WorldCard:
        """Read a card. Raises CheckpointError on a missing or unknown field."""
        try:
            buttons = tuple(Button(**{**b, "keys": tuple(b["keys"])}) for b in fields["buttons"])
            axes = tuple(Axis(**a) for a in fields["axes"])
            statistics = {
                name: (float(mean), float(deviation))
                for name, (mean, deviation) in fields.get("statistics", {}).items()
            }
            return WorldCard(**{**fields, "buttons": buttons, "axes": axes, "statistics": statistics})
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise CheckpointError(f"the card in world.json is malformed: {exc}") from exc
