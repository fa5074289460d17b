"""A token bucket: how often something may happen. Owns the count; knows no clock (callers pass the time in seconds)."""

from __future__ import annotations


class TokenBucket:
    """Allows `rate` events per second on average and at most `burst` at once."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._refilled_at = now

    def take(self, now: float, amount: float = 1.0, *, keep: float = 0.0) -> bool:
        """Take `amount` tokens; return whether there were as many beside `keep` more, that is, whether the event may
        happen now."""
        self._refill(now)
        if self._tokens < amount + keep:
            return False
        self._tokens -= amount
        return True

    def charge(self, amount: float, now: float) -> None:
        """Remove `amount` tokens, or all if there are fewer."""
        self._refill(now)
        self._tokens = max(0.0, self._tokens - amount)

    def give(self, amount: float, now: float) -> None:
        """Add `amount` tokens, up to `burst`."""
        self._refill(now)
        self._tokens = min(self._burst, self._tokens + amount)

    def is_full(self, now: float) -> bool:
        """Return whether the bucket is full, so that forgetting it makes no difference."""
        self._refill(now)
        return self._tokens >= self._burst

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
