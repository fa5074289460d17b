"""No address takes all places: its share leaves slots and places in the queue for others, and newcomers come first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from server.admission.admission_queue import AdmissionQueue, Admitted, Waiting
from server.config import ServerConfig
from server.errors import ConfigError, ServerFullError
from server.wire.protocol import Error, Queued, Welcome
from tests.server.raw import Raw, hello, raw_client
from tests.server.serving import RunningServer, serve
from world.testing import tiny_world


def test_an_address_has_at_most_its_share_of_slots_and_of_the_queue() -> None:
    queue = AdmissionQueue(4, 4, share=0.5)
    assert [type(queue.join(key, 0.0, "a")) for key in ("a1", "a2", "a3", "a4")] == [Admitted] * 2 + [Waiting] * 2
    with pytest.raises(ServerFullError, match="2 of them from your address"):
        queue.join("a5", 0.0, "a")
    assert queue.join("b1", 0.0, "b") == Admitted("b1", 2)
    assert queue.leave("b1", 1.0) == [queue.place("a3"), queue.place("a4")], "the free slot stays free"
    assert queue.leave("a1", 2.0)[0] == Admitted("a3", 0)


def test_a_share_is_at_least_one_place() -> None:
    queue = AdmissionQueue(1, 1, share=0.1)
    assert queue.join("a1", 0.0, "a") == Admitted("a1", 0)
    assert queue.join("a2", 0.0, "a") == Waiting("a2", 1, None)


def test_of_those_who_wait_the_address_that_plays_least_is_next() -> None:
    queue = AdmissionQueue(2, 8)
    for key in ("a1", "a2", "a3", "a4"):
        queue.join(key, 0.0, "a")
    assert queue.join("b1", 0.0, "b") == Waiting("b1", 1, None)
    assert queue.join("b2", 0.0, "b") == Waiting("b2", 2, None), "b has one ahead, a has two that play"
    assert queue.waiting_behind("b1") == [Waiting("b2", 2, None), Waiting("a3", 3, None), Waiting("a4", 4, None)]
    assert queue.leave("a1", 1.0)[0] == Admitted("b1", 0)


def test_who_comes_back_from_a_pause_is_first_and_changes_nobody_elses_order() -> None:
    has_time = True
    queue = AdmissionQueue(2, 8, lambda _keys: has_time)
    for key in ("a1", "b1", "b2", "a2"):
        queue.join(key, 0.0, key[0])
    has_time = False
    assert queue.ask_again("a1") == Waiting("a1", 1, None)
    assert queue.admit_more(1.0) == []
    assert queue.waiting_behind("a1") == [Waiting("b2", 2, None), Waiting("a2", 3, None)]
    assert queue.withdraw("a1") == [Waiting("b2", 1, None), Waiting("a2", 2, None)]


def test_sessions_without_a_known_address_share_nothing() -> None:
    queue = AdmissionQueue(2, 2, share=0.5)
    assert [type(queue.join(str(number), 0.0)) for number in range(4)] == [Admitted] * 2 + [Waiting] * 2


class Addresses(RuleBasedStateMachine):
    """Sessions of three addresses come and go."""

    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.queue = AdmissionQueue(5, 6, share=0.6)
        self.addresses: dict[str, str] = {}
        self.count = 0

    @rule(target=keys, address=st.sampled_from("abc"))
    def join(self, address: str) -> str:
        self.count += 1
        key = f"{address}{self.count}"
        try:
            self.queue.join(key, 0.0, address)
        except ServerFullError:
            waiting = [key for key in self.addresses if isinstance(self.queue.place(key), Waiting)]
            assert len(waiting) == 6 or sum(key[0] == address for key in waiting) == 3
        else:
            self.addresses[key] = address
        return key

    @rule(key=consumes(keys))
    def leave(self, key: str) -> None:
        self.addresses.pop(key, None)
        self.queue.leave(key, 1.0)

    @invariant()
    def every_address_has_its_share_and_no_more(self) -> None:
        places = {key: self.queue.place(key) for key in self.addresses}
        playing = [key[0] for key, place in places.items() if isinstance(place, Admitted)]
        assert all(playing.count(address) <= 3 for address in "abc")
        for key, place in places.items():
            if isinstance(place, Waiting):
                assert len(playing) == 5 or playing.count(key[0]) == 3, "nobody waits for nothing"
        waiting = [place.position for place in places.values() if isinstance(place, Waiting)]
        assert sorted(waiting) == list(range(1, len(waiting) + 1))


TestAddresses = Addresses.TestCase


@pytest.fixture
def server() -> Iterator[RunningServer]:
    config = ServerConfig(max_sessions=4, queue_limit=2, address_share=0.5, num_threads=1, headroom=None, resume_s=0.0)
    with serve(config, {"pixel": tiny_world}) as running:
        yield running


async def test_over_sockets_an_address_cannot_lock_another_one_out(server: RunningServer) -> None:
    async with AsyncExitStack() as stack:

        async def joined(address: str) -> Raw:
            client = await stack.enter_async_context(
                raw_client(server.url, additional_headers={"X-Forwarded-For": address})
            )
            await client.send(hello())
            return client

        greedy = [await (await joined("192.0.2.1")).receive() for _ in range(4)]
        assert [type(message) for message in greedy] == [Welcome, Welcome, Queued, Error]
        assert isinstance(greedy[3], Error)
        assert greedy[3].code == "server_full"
        for _ in range(2):
            newcomer = await joined("192.0.2.2")
            assert isinstance(await newcomer.receive(), Welcome)
            assert await newcomer.play(2)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="address_share"):
        ServerConfig(address_share=share)
