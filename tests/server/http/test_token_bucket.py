"""The token bucket: a burst, then the average rate."""

from __future__ import annotations

from server.http.token_bucket import TokenBucket


def test_after_a_burst_it_allows_its_rate() -> None:
    bucket = TokenBucket(rate=10.0, burst=3.0, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.15), bucket.take(0.15)] == [True, False]
    assert sum(bucket.take(1.0 + step / 100) for step in range(1000)) in range(100, 105)


def test_idle_time_saves_up_at_most_one_burst() -> None:
    bucket = TokenBucket(rate=10.0, burst=3.0, now=0.0)
    assert sum(bucket.take(1e6) for _ in range(100)) == 3
