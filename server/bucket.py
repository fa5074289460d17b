"""How often something may happen: a token bucket. Owns the count; knows no clock (time is handed in, in seconds)."""

from __future__ import annotations


class TokenBucket:
    """`rate` a second on average, and at most `burst` at once."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._counted_at = now

    def take(self, now: float) -> bool:
        """Whether it may happen once more now."""
        self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._rate)
        self._counted_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
