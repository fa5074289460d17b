"""How many threads a step uses: a decision for each batch size, revised by how long steps take. Owns the decision
alone; knows no clock, no threads and no tensors.

More threads are faster on an idle machine, and many times slower once another process occupies one of their cores:
each of a step's many parallel regions then waits until the scheduler lets its last thread run. So whatever is in use is
compared with the alternatives again and again, in short trials of real steps; and a step that takes too long goes on
with fewer threads, so that neither a trial nor a new neighbour costs more than a part of a step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

WINDOW = 8
"""Steps that tell how fast the present number of threads is."""
TRIAL = 5
"""Steps of a trial; it ends early after a step that takes `GIVE_UP` times as long as usual."""
GIVE_UP = 1.5
TOO_LONG = 2.0
"""A step that takes this many times as long as usual goes on with fewer threads."""
MIN_GAIN = 1.05
"""An alternative is adopted only if it is this much faster."""
SLOW = 1.3
"""Fewer threads are tried at once when steps take this much longer than before."""
FIRST_WAIT, LONGEST_WAIT = 8, 1024
"""Steps until an alternative is tried; the wait doubles whenever it fails."""
UNKNOWN_WAIT = 2
"""Steps until the first trial where no number is preferred."""
LASTING = 900
"""An alternative that was in use for this many steps has not failed."""


def choices_up_to(most: int) -> tuple[int, ...]:
    """Return the numbers of threads worth comparing: one, half of `most`, and `most`."""
    return tuple(sorted({1, max(1, most // 2), most}))


def preferred_for(batch: int, preferred: Mapping[int, int]) -> int | None:
    """Return the number preferred for the largest listed batch size up to `batch`, else for the smallest one."""
    if not preferred:
        return None
    return preferred[max((size for size in preferred if size <= batch), default=min(preferred))]


def typical_ms(steps_ms: Sequence[float]) -> float:
    """Return the mean without the largest value: one disturbance does not count, repeated ones do."""
    return fmean(sorted(steps_ms)[:-1]) if len(steps_ms) > 1 else steps_ms[0]


@dataclass(slots=True)
class _Size:
    """What is known of one batch size. current, trial_of: positions in the choices; waits: by position, steps at the
    present number until that one is tried; first_ms: the first step, with the fewest threads; usual_ms: the fastest
    window at the present number since the last trial."""

    current: int
    waits: list[int]
    first_ms: float | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    usual_ms: float = float("inf")
    num_steps: int = 0
    since_trial: int = 0
    trial_of: int | None = None
    trial: list[float] = field(default_factory=list)


class ThreadPolicy:
    """Which of `choices` (ascending) the next step of a batch size uses.

    preferred: what to begin with, by batch size (`preferred_for`); without it, the fewest. The first step of a size
    always uses the fewest, because only then it is known what is too long.
    """

    def __init__(self, choices: Sequence[int], preferred: Mapping[int, int] | None = None) -> None:
        assert list(choices) == sorted(set(choices))
        self.choices = tuple(choices)
        self._preferred = dict(preferred or {})
        self._sizes: dict[int, _Size] = {}

    def threads(self, batch: int) -> int:
        """Return the number of threads for the next step of `batch` sessions."""
        size = self._size(batch)
        if size.first_ms is None:
            return self.choices[0]
        return self.choices[size.current if size.trial_of is None else size.trial_of]

    def limit(self, batch: int) -> tuple[float, int] | None:
        """Return after how many milliseconds the next step of `batch` sessions is to go on with fewer threads, and with
        how many; None: it is to go on as it began."""
        size = self._size(batch)
        if size.trial_of is not None:
            return GIVE_UP * typical_ms(size.recent), min(self.choices[size.current], self.choices[size.trial_of])
        if size.current == 0 or size.first_ms is None:
            return None
        usual_ms = min(size.usual_ms, typical_ms(size.recent)) if size.recent else size.first_ms
        return TOO_LONG * (usual_ms if len(size.recent) == WINDOW else min(usual_ms, size.first_ms)), self.choices[0]

    def record(self, batch: int, step_ms: float) -> None:
        """Note how long a step took with the number of threads that `threads` returned."""
        size = self._size(batch)
        if size.first_ms is None:
            size.first_ms = step_ms
            return
        if size.trial_of is not None:
            size.trial.append(step_ms)
            if len(size.trial) == TRIAL or step_ms > GIVE_UP * typical_ms(size.recent):
                self._end_trial(size, size.trial_of)
            return
        size.recent.append(step_ms)
        size.num_steps += 1
        size.since_trial += 1
        now_ms = typical_ms(size.recent)
        if len(size.recent) == WINDOW:
            size.usual_ms = min(size.usual_ms, now_ms)
        size.trial_of = self._next_trial(size, is_slow=now_ms > SLOW * size.usual_ms)

    def tries_more(self, batch: int) -> int | None:
        """Return the greater number of threads that the next step is the first to try; None if it is no such step."""
        size = self._size(batch)
        begins = size.trial_of is not None and not size.trial and size.trial_of > size.current
        return self.threads(batch) if begins else None

    def skip_trial(self, batch: int) -> None:
        """Leave out a trial before it begins. It becomes due again after as long a wait."""
        size = self._size(batch)
        size.trial_of, size.since_trial = None, 0

    def forget(self) -> None:
        """Begin anew, because steps have become different (such as compiled)."""
        self._sizes.clear()

    def _size(self, batch: int) -> _Size:
        if batch not in self._sizes:
            begin = preferred_for(batch, self._preferred)
            known = begin in self.choices
            wait = FIRST_WAIT if known else UNKNOWN_WAIT
            self._sizes[batch] = _Size(self.choices.index(begin) if known else 0, [wait] * len(self.choices))
        return self._sizes[batch]

    def _next_trial(self, size: _Size, *, is_slow: bool) -> int | None:
        """Return which alternative to try now: the next lower number when steps are slow, or the one that is due."""
        if is_slow and size.current:
            return size.current - 1
        others = [position for position in (size.current - 1, size.current + 1) if 0 <= position < len(self.choices)]
        due = [position for position in others if size.waits[position] <= size.since_trial]
        return min(due, key=lambda position: size.waits[position], default=None)

    def _end_trial(self, size: _Size, tried: int) -> None:
        won = len(size.trial) == TRIAL and typical_ms(size.trial) * MIN_GAIN < typical_ms(size.recent)
        loser = size.current if won else tried
        lasted = won and size.num_steps >= LASTING
        size.waits[loser] = FIRST_WAIT if lasted else min(2 * size.waits[loser], LONGEST_WAIT)
        if won:
            size.current, size.num_steps = tried, 0
            size.recent = deque(size.trial, maxlen=WINDOW)
        size.usual_ms = typical_ms(size.recent)
        size.trial_of, size.trial, size.since_trial = None, [], 0
