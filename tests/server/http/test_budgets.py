"""One budget per address, with a clock that the tests advance, and over real sockets: whatever costs time counts, also
what is no message, and those of other addresses play on."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import httpx
import numpy as np
import pytest
from PIL import Image

from server.config import ServerConfig
from server.http.budgets import BURST_S, RESERVE, Budgets, Meter, address_of
from server.wire.protocol import Act, Error, Fork, Start, StartFrom, encode
from tests.server.http.peer import BINARY, CONTINUATION, PING, PONG, Peer, client_frame
from tests.server.raw import hello, raw_client
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world.testing import tiny_world

RATE = 100.0
BURST = BURST_S * RATE
CONFIG = ServerConfig(address_budget=RATE, max_per_address=4)
OTHER = "127.0.0.2"

needs_addresses = pytest.mark.skipif(sys.platform != "linux", reason="needs several loopback addresses")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Ended:
    """Who was cut off."""

    names: list[str] = field(default_factory=list)

    def opened(self, budgets: Budgets, name: str, host: str = "a") -> Meter:
        meter = budgets.open(host, 0.0)
        assert meter is not None
        meter.end = lambda: self.names.append(name)
        return meter


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_what_one_subscriber_has(host: str, address: str) -> None:
    assert address_of(host) == address


def test_the_connection_that_spent_most_lately_is_cut_off_first() -> None:
    clock, ended = Clock(), Ended()
    budgets = Budgets(CONFIG, clock)
    early, quiet, loud = (ended.opened(budgets, name) for name in ("early", "quiet", "loud"))
    assert early.spend(BURST * 0.9)
    clock.now = 60.0
    assert loud.spend(BURST * 0.8)
    assert quiet.spend(BURST * 0.2)
    assert quiet.spend(1.0), "it goes on: another one is the cause"
    assert ended.names == ["loud"]
    assert not loud.spend(0.0)
    assert quiet.spend(1.0), "nothing is left, but it spent less than an equal part"
    assert not quiet.spend(RATE / 2)
    assert ended.names == ["loud", "quiet"]
    clock.now += 1.0
    assert early.spend(RATE)


def test_work_that_has_yet_to_begin_leaves_a_reserve_for_those_who_play() -> None:
    clock, ended = Clock(), Ended()
    budgets = Budgets(CONFIG, clock)
    player, asker = ended.opened(budgets, "player"), ended.opened(budgets, "asker")
    while asker.afford(BURST / 10):
        pass
    assert budgets.open("a", BURST / 10) is None
    assert ended.opened(budgets, "neighbour", "b").afford(BURST / 10)
    assert player.spend(BURST * RESERVE)
    assert ended.names == []
    clock.now += BURST_S
    assert asker.afford(BURST / 10)


def test_frames_that_the_server_sends_pay_for_the_answers_to_them() -> None:
    budgets = Budgets(CONFIG, Clock())
    meter = Ended().opened(budgets, "player")
    for _ in range(int(BURST)):
        meter.give_back(2.0)
        assert meter.spend(2.0)


def test_sockets_are_counted_by_address_before_they_say_anything() -> None:
    budgets = Budgets(replace(CONFIG, address_budget=1e6), Clock())
    meters = [budgets.open("a") for _ in range(8)]
    assert None not in meters
    assert budgets.open("a") is None
    assert budgets.open("b") is not None
    assert meters[0] is not None
    meters[0].close()
    meters[0].close()
    assert budgets.num_open == 8
    assert budgets.open("a") is not None


def test_behind_a_proxy_every_player_has_a_budget() -> None:
    clock, ended = Clock(), Ended()
    budgets = Budgets(CONFIG, clock)
    first, second = ended.opened(budgets, "first", "proxy"), ended.opened(budgets, "second", "proxy")
    first.identify("2001:db8::1")
    second.identify("2001:db8:0:1::1")
    assert first.spend(BURST)
    assert not first.spend(1.0)
    assert second.spend(BURST)
    assert ended.names == ["first"]


def test_addresses_that_owe_nothing_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.http.budgets.MAX_REMEMBERED", 3)
    clock = Clock()
    budgets = Budgets(CONFIG, clock)
    kept = budgets.open("kept")
    for number in range(20):
        clock.now += 60.0
        meter = budgets.open(str(number))
        assert meter is not None
        meter.close()
        assert len(budgets._accounts) <= 4
    assert kept is not None
    assert kept.address in budgets._accounts


# ---- over sockets


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    config = ServerConfig(
        max_sessions=4, num_threads=1, headroom=None, resume_s=0.0, address_budget=400.0, connections_per_s=1000.0
    )
    with serve(config, {"pixel": tiny_world}) as running:
        yield running


def pings(peer: Peer) -> bool:
    return peer.frame(PING)


def pongs(peer: Peer) -> bool:
    return peer.frame(PONG, b"unasked")


def empty_fragments(peer: Peer) -> bool:
    return peer.frame(CONTINUATION, fin=False)


def requests(peer: Peer) -> bool:
    return peer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n") and peer.read(0.001)


def pipelined_requests(peer: Peer) -> bool:
    return peer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 50) and peer.read(0.001)


def bytes_of_a_body(peer: Peer) -> bool:
    return peer.write(bytes(65536))


Flood = Callable[[Peer], bool]
FLOODS: tuple[Flood, ...] = (pings, pongs, empty_fragments)
HTTP_FLOODS: tuple[Flood, ...] = (requests, pipelined_requests, bytes_of_a_body)


@needs_addresses
@pytest.mark.parametrize("says_hello", [False, True])
@pytest.mark.parametrize("flood", FLOODS)
async def test_frames_that_are_no_messages_count_too(server: RunningServer, flood: Flood, says_hello: bool) -> None:
    attacker = f"127.0.1.{1 + 2 * FLOODS.index(flood) + says_hello}"
    async with raw_client(server.url, hello()) as player:
        peer = Peer(server.port, attacker)
        peer.shake_hands()
        if says_hello:
            peer.frame(BINARY, encode(hello()))
        if flood is empty_fragments:
            peer.frame(BINARY, fin=False)
        number = 0
        while number < 100_000 and flood(peer):
            number += 1
        assert number < 100_000, "cut off"
        peer.end()
        assert len(await player.play(5)) == 5
    await until(lambda: server.engine.num_sessions == (0, 0), "both sessions have ended")


async def test_a_flood_does_not_end_the_game_of_a_neighbour_behind_the_same_address(server: RunningServer) -> None:
    flood = 5000 * client_frame(PING)

    def until_cut_off() -> None:
        peer = Peer(server.port)
        peer.shake_hands()
        while peer.write(flood):
            pass
        peer.end()

    async with raw_client(server.url, hello()) as player:
        for _ in range(3):
            flooding = asyncio.create_task(asyncio.to_thread(until_cut_off))
            while not flooding.done():
                await player.play(1)
            await player.play(20)


@needs_addresses
@pytest.mark.parametrize("flood", HTTP_FLOODS)
async def test_requests_and_their_bytes_count(server: RunningServer, flood: Flood) -> None:
    peer = Peer(server.port, f"127.0.2.{1 + HTTP_FLOODS.index(flood)}")
    if flood is bytes_of_a_body:
        peer.write(b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
    number = 0
    while number < 20_000 and flood(peer):
        number += 1
    peer.end()
    assert number < 20_000, "cut off"
    if flood is not bytes_of_a_body:
        assert peer.received.startswith(b"HTTP/1.1 200")
        assert b" 429 " in peer.received


@needs_addresses
async def test_an_address_that_connects_without_end_is_refused_and_others_come_in(
    server: RunningServer,
) -> None:
    answers = []
    for _ in range(400):
        peer = Peer(server.port, OTHER)
        peer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answers.append(peer.until_closed())
        peer.end()
    assert any(b" 200 " in answer for answer in answers)
    assert sum(b" 503 " in answer for answer in answers) > 50
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    async with raw_client(server.url, hello()) as player:
        assert await player.play(2)


async def test_pictures_and_forks_are_refused_while_the_connection_goes_on(server: RunningServer) -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(out, "PNG")
    headers = {"X-Forwarded-For": "198.51.100.7"}
    async with raw_client(server.url, hello(pacing="lockstep"), additional_headers=headers) as player:
        await player.play(1)
        for seq in range(20):
            start = Start(seq=seq, start=StartFrom(image=out.getvalue()))
            await player.send(start if seq % 2 else Fork(seq=seq))
        refused: list[Error] = []
        while not any(error.seq == 19 for error in refused):
            if isinstance(message := await player.receive(), Error):
                refused.append(message)
        assert {(error.code, error.fatal) for error in refused} == {("too_many_pending", False)}
        await player.send(Act(seq=1))
    async with raw_client(server.url, hello(), additional_headers={"X-Forwarded-For": "198.51.100.8"}) as other:
        await other.play(2)
        await other.send(Fork(seq=1))
        assert await other.play(20)
    addresses = server.app.state.budgets._accounts
    assert {"198.51.100.7", "198.51.100.8"} <= set(addresses)
