"""Which pages may connect."""

from __future__ import annotations

import pytest

from server.errors import OriginRefusedError
from server.origin import check_origin


@pytest.mark.parametrize(
    ("origin", "host", "bound"),
    [
        (None, "127.0.0.1:8000", "127.0.0.1"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "127.0.0.1"),
        ("http://localhost:8000", "localhost:8000", "127.0.0.1"),
        ("http://[::1]:8000", "[::1]:8000", "::1"),
        ("https://play.example.org", "play.example.org", "0.0.0.0"),
        ("https://friend.example.org", "play.example.org", "0.0.0.0"),
    ],
)
def test_pages_of_the_same_host_and_allowed_ones_may_connect(origin: str | None, host: str, bound: str) -> None:
    check_origin(origin, host, bound, ("https://friend.example.org",))


@pytest.mark.parametrize(
    ("origin", "host", "bound"),
    [
        ("https://evil.example.org", "127.0.0.1:8000", "127.0.0.1"),
        ("http://127.0.0.1:9000", "127.0.0.1:8000", "127.0.0.1"),
        ("http://rebound.example.org:8000", "rebound.example.org:8000", "127.0.0.1"),
        ("null", "127.0.0.1:8000", "127.0.0.1"),
        ("https://evil.example.org", "play.example.org", "0.0.0.0"),
        ("", "", "0.0.0.0"),
    ],
)
def test_other_pages_may_not(origin: str, host: str, bound: str) -> None:
    with pytest.raises(OriginRefusedError):
        check_origin(origin, host, bound, ())


def test_a_star_lifts_the_check() -> None:
    check_origin("https://anyone.example.org", "127.0.0.1:8000", "127.0.0.1", ("*",))
