"""Limits by address and by token, with a clock that the tests advance, and once over real sockets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli.serve import tokens_in
from server.config import ServerConfig
from server.errors import (
    BadMessageError,
    ConfigError,
    RateLimitedError,
    ServerError,
    ShuttingDownError,
    TooManyConnectionsError,
    UnauthorizedError,
)
from server.http import connection_limits as limits_module
from server.http.connection_limits import ConnectionLimits, ConnectionPermit
from tests.server.raw import hello, raw_client
from tests.server.serving import serve
from world.testing import tiny_world

TOKENS = ("first-token-of-two", "the-other-token-of-two")
CONFIG = ServerConfig(max_per_address=4, connections_per_s=2.0, tokens=TOKENS, max_per_token=2)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_connections_at_once_are_limited_per_address() -> None:
    connection_limits = ConnectionLimits(CONFIG, Clock())
    permits = [connection_limits.connect("a") for _ in range(4)]
    with pytest.raises(TooManyConnectionsError, match="4 connections from your address are open; close one"):
        connection_limits.connect("a")
    connection_limits.connect("b")
    permits[0].release(None)
    with pytest.raises(TooManyConnectionsError, match="too often"):
        connection_limits.connect("a")


def test_the_rate_of_new_connections_is_limited_per_address() -> None:
    clock = Clock()
    connection_limits = ConnectionLimits(CONFIG, clock)
    for _ in range(4):
        connection_limits.connect("a").release(None)
    with pytest.raises(TooManyConnectionsError, match="too often"):
        connection_limits.connect("a")
    clock.now = 0.5
    connection_limits.connect("a").release(None)
    with pytest.raises(TooManyConnectionsError):
        connection_limits.connect("a")


@pytest.mark.parametrize(
    ("error", "waits_s"), [(RateLimitedError("x"), 0.5), (BadMessageError("x"), 0.5), (ShuttingDownError("x"), 0.0)]
)
def test_a_client_that_was_cut_off_has_to_wait(error: ServerError, waits_s: float) -> None:
    clock = Clock()
    connection_limits = ConnectionLimits(CONFIG, clock)
    connection_limits.connect("a").release(error)
    if waits_s:
        with pytest.raises(TooManyConnectionsError):
            connection_limits.connect("a")
    clock.now = waits_s
    connection_limits.connect("a")


def test_a_token_is_required_and_its_sessions_are_limited() -> None:
    connection_limits = ConnectionLimits(replace(CONFIG, max_per_address=100), Clock())

    def connect_with(token: str | None) -> ConnectionPermit:
        permit = connection_limits.connect("a")
        permit.authenticate(token)
        return permit

    for wrong in (None, "", "x", TOKENS[0] + "x", TOKENS[0][:-1], "ä" * 20):
        with pytest.raises(UnauthorizedError, match="requires a token") as refused:
            connect_with(wrong)
        assert not any(token in str(refused.value) for token in TOKENS)
    first = [connect_with(TOKENS[0]) for _ in range(2)]
    with pytest.raises(TooManyConnectionsError, match="2 sessions of this token"):
        connect_with(TOKENS[0])
    connect_with(TOKENS[1])
    first[0].release(None)
    connect_with(TOKENS[0])


def test_a_server_without_tokens_requires_none() -> None:
    ConnectionLimits(replace(CONFIG, tokens=()), Clock()).connect("a").authenticate(None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 2)), max_size=60))
def test_counts_return_to_zero(events: list[tuple[str, bool, float]]) -> None:
    clock = Clock()
    connection_limits, open_now = ConnectionLimits(CONFIG, clock), []
    for address, connects, pause_s in events:
        clock.now += pause_s
        if connects:
            try:
                open_now.append(connection_limits.connect(address))
            except TooManyConnectionsError:
                continue
        elif open_now:
            open_now.pop().release(RateLimitedError("x") if pause_s > 1 else None)
        assert sum(connection_limits._open.values()) == len(open_now)
        assert max(connection_limits._open.values(), default=0) <= CONFIG.max_per_address
    for permit in open_now:
        permit.release(None)
    assert not connection_limits._open


def test_addresses_with_a_full_allowance_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MAX_REMEMBERED", 3)
    clock = Clock()
    connection_limits = ConnectionLimits(CONFIG, clock)
    connection_limits.connect("stays")
    for number in range(20):
        clock.now += 1.0
        connection_limits.connect(str(number)).release(None)
        assert len(connection_limits._allowances) <= 4
    assert "stays" in connection_limits._allowances


def test_settings_that_would_admit_nobody_or_everybody_are_refused_by_name(tmp_path: Path) -> None:
    for wrong in ({"tokens": ("short",)}, {"max_per_address": 0}, {"max_per_token": 0}, {"connections_per_s": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ServerConfig(**wrong)
    empty = tmp_path / "tokens"
    with pytest.raises(ConfigError, match="cannot be read"):
        tokens_in(empty)
    empty.write_text("\n \n")
    with pytest.raises(ConfigError, match="has no token"):
        tokens_in(empty)
    with pytest.raises(ConfigError, match="both the certificate and its key"):
        ServerConfig(tls_cert=empty)
    with pytest.raises(ConfigError, match=r"gone\.pem does not exist"):
        ServerConfig(tls_cert=empty, tls_key=tmp_path / "gone.pem")


async def test_over_sockets_only_clients_with_a_token_can_play() -> None:
    with serve(ServerConfig(tokens=TOKENS, num_threads=1), {"pixel": tiny_world}) as server:
        for wrong in (None, "another-token-than-these"):
            async with raw_client(server.url) as client:
                await client.send(hello(token=wrong))
                error = await client.error()
                assert (error.code, await client.close_code()) == ("unauthorized", 1008)
        async with raw_client(server.url, hello(token=TOKENS[1])) as client:
            assert await client.play(2)
