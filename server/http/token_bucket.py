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
        self._count(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def charge(self, amount: float, now: float) -> None:
        """Something counts for more: as if it had happened `amount` times, but never below nothing left."""
        self._count(now)
        self._tokens = max(0.0, self._tokens - amount)

    def give(self, amount: float, now: float) -> None:
        """It may happen so often more; still at most `burst` at once."""
        self._count(now)
        self._tokens = min(self._burst, self._tokens + amount)

    def is_full(self, now: float) -> bool:
        """Whether nothing has happened for so long that nothing need be remembered."""
        self._count(now)
        return self._tokens >= self._burst

    def _count(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._rate)
        self._counted_at = now
