"""A player's input between two ticks: held buttons, key presses, summed axes. Owns which input is applied next; knows
no clocks, sockets or tensors.

Buttons are latest-wins. A press (a button that the previous act did not hold) is kept until a chunk applies it, even if
the button is released in between. In a world where only one button can be held (`exclusive`), presses are applied one
per chunk, oldest first. Axis movement adds up until it is applied. In lock-step every act gets its own chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.errors import BadActionError, TooManyPendingError
from server.wire.protocol import MAX_MOVEMENT, Act, WorldInfo


@dataclass(frozen=True, slots=True)
class Stamp:
    """The act that an input came with, and when it arrived (seconds)."""

    seq: int
    t_client: float | None
    arrived_at: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The input of one chunk.

    stamp: the newest act in it, None before the first; acts: the numbers of the acts that it applies first.
    """

    buttons: tuple[str, ...] = ()
    axes: Mapping[str, float] = field(default_factory=dict)
    stamp: Stamp | None = None
    acts: tuple[int, ...] = ()


class InputBuffer:
    """The input of one session.

    axes: (low, high) by name; max_pending: the most acts kept for lock-step, and the most receipts owed in real time.
    """

    def __init__(
        self, buttons: tuple[str, ...], axes: Mapping[str, tuple[float, float]], exclusive: bool, max_pending: int
    ) -> None:
        self._names = frozenset(buttons)
        self._ranges = dict(axes)
        self._exclusive = exclusive
        self._max_pending = max_pending
        self._queue: deque[tuple[Act, float]] = deque()
        self._held: tuple[str, ...] = ()
        self._presses: dict[str, Stamp] = {}
        self._moved: dict[str, float] = {}
        self._newest: Stamp | None = None
        self._unapplied: deque[int] = deque(maxlen=max_pending)
        self._last_seq = -1

    @staticmethod
    def of(world: WorldInfo, max_pending: int) -> InputBuffer:
        """Return a buffer for a world's buttons and axes."""
        axes = {axis.name: (axis.low, axis.high) for axis in world.axes}
        return InputBuffer(tuple(button.name for button in world.buttons), axes, world.exclusive_buttons, max_pending)

    @property
    def num_pending(self) -> int:
        """Return the number of lock-step acts that wait for their chunk."""
        return len(self._queue)

    @property
    def oldest_arrival(self) -> float | None:
        """Return when the oldest waiting lock-step act arrived."""
        return self._queue[0][1] if self._queue else None

    @property
    def oldest_seq(self) -> int | None:
        """Return the number of the oldest waiting lock-step act."""
        return self._queue[0][0].seq if self._queue else None

    @property
    def last_seq(self) -> int:
        """Return the number of the newest accepted act, -1 before the first."""
        return self._last_seq

    def put(self, act: Act, now: float, *, lockstep: bool) -> None:
        """Accept an act. Raise BadActionError or TooManyPendingError; nothing has changed then."""
        self._check(act)
        if lockstep and len(self._queue) >= self._max_pending:
            raise TooManyPendingError(
                f"act {act.seq}: {len(self._queue)} acts already wait for their chunk; wait for frames between acts"
            )
        self._last_seq = act.seq
        if lockstep:
            self._queue.append((act, now))
        else:
            self._merge(act, now)

    def to_data(self) -> dict[str, Any]:
        """Return plain values for `restore`. Times are left out: another machine has another clock."""
        return {
            "queue": [act.model_dump() for act, _ in self._queue],
            "held": list(self._held),
            "presses": [(name, stamp.seq, stamp.t_client) for name, stamp in self._presses.items()],
            "moved": dict(self._moved),
            "newest": self._newest and (self._newest.seq, self._newest.t_client),
            "unapplied": list(self._unapplied),
            "last_seq": self._last_seq,
        }

    def restore(self, data: dict[str, Any], now: float) -> None:
        """Become the buffer that `to_data` described. Raise KeyError, TypeError or ValueError."""
        self._queue = deque((Act.model_validate(act), now) for act in data["queue"])
        self._held = tuple(data["held"])
        self._presses = {name: Stamp(seq, t_client, now) for name, seq, t_client in data["presses"]}
        self._moved = dict(data["moved"])
        self._newest = None if data["newest"] is None else Stamp(data["newest"][0], data["newest"][1], now)
        self._unapplied = deque(data["unapplied"], self._max_pending)
        self._last_seq = data["last_seq"]

    def flatten(self) -> None:
        """Leave lock-step: merge all waiting acts into one input."""
        while self._queue:
            self._merge(*self._queue.popleft())

    def sample(self) -> Sample:
        """Return the input for the chunk that begins now."""
        in_lockstep = bool(self._queue)
        if in_lockstep:
            self._merge(*self._queue.popleft())
        buttons, stamp = self._buttons(in_lockstep)
        axes = {name: min(max(value, low), high) for name, value, (low, high) in self._movement()}
        self._moved.clear()
        acts = tuple(seq for seq in self._unapplied if stamp is not None and seq <= stamp.seq)
        for _ in acts:
            self._unapplied.popleft()
        return Sample(buttons, axes, stamp, acts)

    def _buttons(self, in_lockstep: bool) -> tuple[tuple[str, ...], Stamp | None]:
        if not self._exclusive:
            buttons = tuple(dict.fromkeys((*self._held, *self._presses)))
            self._presses.clear()
            return buttons, self._newest
        if in_lockstep or not self._presses:
            self._presses.clear()
            return self._held[-1:], self._newest
        name = next(iter(self._presses))
        stamp = self._presses.pop(name)
        return (name,), stamp if self._presses else self._newest

    def _movement(self) -> list[tuple[str, float, tuple[float, float]]]:
        return [(name, value, self._ranges[name]) for name, value in self._moved.items()]

    def _merge(self, act: Act, arrived_at: float) -> None:
        stamp = Stamp(act.seq, act.t_client, arrived_at)
        for name in act.buttons:
            if name not in self._held:
                self._presses.setdefault(name, stamp)
        self._held = act.buttons
        for name, value in act.axes.items():
            self._moved[name] = min(max(self._moved.get(name, 0.0) + value, -MAX_MOVEMENT), MAX_MOVEMENT)
        self._newest = stamp
        self._unapplied.append(act.seq)

    def _check(self, act: Act) -> None:
        if act.seq <= self._last_seq:
            raise BadActionError(f"act {act.seq} after act {self._last_seq}: seq must increase with every act")
        for name in act.buttons:
            if name not in self._names:
                known = ", ".join(sorted(self._names)) or "no buttons"
                raise BadActionError(f"button {name[:40]!r}: this world has {known}")
        for name in act.axes:
            if name not in self._ranges:
                known = ", ".join(sorted(self._ranges)) or "no axes"
                raise BadActionError(f"axis {name[:40]!r}: this world has {known}")
