"""How much of the model's time slot jobs may take from those who play. Pure arithmetic; times are passed in, in seconds
of any monotonic clock.

A part of a job that is over before the next step is due costs nobody anything. Other parts delay that step; such delays
add up to at most `SHARE` of all time. So jobs go on in the fullest server, and nobody's world stops for them.
"""

from __future__ import annotations

import math

SHARE = 0.15
MAX_CREDIT_S = 0.03
"""How much delay can be caused at once after a time without any: about a frame."""

DECAY = 0.9
RESOLUTION_S = 1e-4


class JobShare:
    """The account of delays."""

    def __init__(self) -> None:
        self._credit_s, self._counted_at = MAX_CREDIT_S, 0.0
        self._part_s = 0.0

    def may_run(self, now: float, step_at: float) -> bool:
        """Return whether a part may begin now, if the next step is due at `step_at`."""
        self._count(now)
        return now + self._part_s <= step_at or self._credit_s >= 0.0

    def allowed_at(self, now: float, step_at: float) -> float:
        """Return when a part may begin if no step is done before; minus infinity if it may now."""
        return -math.inf if self.may_run(now, step_at) else now + max(-self._credit_s / SHARE, RESOLUTION_S)

    def note(self, began: float, ended: float, step_at: float) -> None:
        """Count a part that ran; the next step was due at `step_at`."""
        self._count(ended)
        self._part_s = max(ended - began, self._part_s * DECAY)
        self._credit_s -= max(0.0, ended - max(began, step_at))

    def _count(self, now: float) -> None:
        elapsed, self._counted_at = max(0.0, now - self._counted_at), now
        self._credit_s = min(MAX_CREDIT_S, self._credit_s + elapsed * SHARE)
