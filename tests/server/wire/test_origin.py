"""Which pages may connect."""

from __future__ import annotations

import pytest

from server.config import ServerConfig
from server.errors import ConfigError, OriginRefusedError
from server.wire.origin import check_origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://localhost:8000", "LOCALHOST:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://192.168.1.5:8000/", "192.168.1.5:8000"),
        ("https://play.example.org", "play.example.org:443"),
        ("HTTPS://Play.Example.org/", "play.example.org"),
        ("http://friend.example.org:8000", "friend.example.org:8000"),
        ("https://Friend.example.org", "play.example.org"),
    ],
)
def test_pages_from_the_servers_own_names_and_from_allowed_origins_may_connect(origin: str | None, host: str) -> None:
    check_origin(origin, host, ("https://friend.example.org/",), ("Play.Example.Org",))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example.org", "127.0.0.1:8000"),
        ("http://127.0.0.1:9000", "127.0.0.1:8000"),
        ("https://127.0.0.1:8000", "127.0.0.1:9000"),
        ("null", "127.0.0.1:8000"),
        ("https://evil.example.org", "play.example.org"),
        ("", ""),
        ("http://[::1", "[::1"),
        ("http://127.0.0.1:port", "127.0.0.1:port"),
        ("http://127.0.0.1:8000@evil.example.org", "evil.example.org"),
        ("file://", "127.0.0.1:8000"),
    ],
)
def test_other_pages_may_not_connect(origin: str, host: str) -> None:
    with pytest.raises(OriginRefusedError):
        check_origin(origin, host, (), ())


def test_a_foreign_name_that_resolves_to_this_server_is_not_the_same_host() -> None:
    """DNS rebinding: page and Host header have the same name, whatever address the server listens on."""
    with pytest.raises(OriginRefusedError, match="--allow-host rebound"):
        check_origin("http://rebound.example.org:8000", "rebound.example.org:8000", (), ("play.example.org",))


def test_a_star_turns_the_check_off() -> None:
    check_origin("https://anyone.example.org", "127.0.0.1:8000", ("*",), ())


def test_an_allowed_origin_must_have_the_form_of_an_origin() -> None:
    with pytest.raises(ConfigError, match=r"play\.example\.org"):
        ServerConfig(allowed_origins=("play.example.org",))
