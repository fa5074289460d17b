"""Slots, the queue and capacity, however players come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from server.admission.admission_queue import AdmissionQueue, Admitted, Waiting
from server.admission.capacity import RECENT_S, Demand, load, tick_ms
from server.config import ServerConfig
from server.errors import ServerFullError
from server.wire.protocol import Bye, Frame, Pause, Play, Queued, Welcome
from tests.server.raw import Raw, hello, raw_client
from tests.server.resuming import resuming, session_of
from tests.server.serving import RunningServer, fix_tick_times, serve
from tests.server.waiting import until
from world.testing import tiny_world


class Players(RuleBasedStateMachine):
    """Three slots, two places in the queue; a model of who is where."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.admission_queue = AdmissionQueue(3, 2)
        self.count = 0
        self.slots: dict[str, int] = {}
        self.queue: list[str] = []

    def apply(self, places: list[Admitted | Waiting]) -> None:
        for place in places:
            if isinstance(place, Admitted):
                assert place.slot not in self.slots.values()
                if place.key in self.queue:
                    assert self.queue.pop(0) == place.key
                self.slots[place.key] = place.slot
            else:
                assert self.queue[place.position - 1] == place.key

    @rule(target=entries)
    def join(self) -> str:
        self.count += 1
        key = f"k{self.count}"
        if len(self.slots) == 3 and len(self.queue) == 2:
            with pytest.raises(ServerFullError):
                self.admission_queue.join(key, self.count)
            return key
        place = self.admission_queue.join(key, self.count)
        if isinstance(place, Waiting):
            self.queue.append(key)
        self.apply([place])
        return key

    @rule(key=consumes(entries))
    def leave(self, key: str) -> None:
        self.slots.pop(key, None)
        if key in self.queue:
            self.queue.remove(key)
        self.apply(self.admission_queue.leave(key, self.count))

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        assert self.admission_queue.num_active == len(self.slots)
        assert self.admission_queue.num_waiting == len(self.queue)
        assert not self.queue or len(self.slots) == 3


TestPlayers = Players.TestCase


def test_the_estimated_wait_follows_from_how_long_players_stayed() -> None:
    admission_queue = AdmissionQueue(2, 4)
    admission_queue.join("a", 0.0)
    admission_queue.join("b", 0.0)
    assert admission_queue.join("c", 0.0) == Waiting("c", 1, None)
    admission_queue.leave("a", 60.0)
    assert admission_queue.join("d", 60.0) == Waiting("d", 1, 30.0)


def test_who_comes_back_from_a_pause_waits_for_time_but_not_behind_those_who_wait_for_a_slot() -> None:
    has_time = True
    admission_queue = AdmissionQueue(2, 4, lambda _keys: has_time)
    for key in "ab":
        admission_queue.join(key, 0.0)
    assert admission_queue.join("c", 0.0) == Waiting("c", 1, None)
    assert admission_queue.ask_again("a") == Admitted("a", 0), "nobody but a can use its slot"
    has_time = False
    assert admission_queue.ask_again("a") == admission_queue.ask_again("a") == Waiting("a", 2, None)
    assert admission_queue.admit_more(1.0) == []
    has_time = True
    assert admission_queue.admit_more(1.0) == [Admitted("a", 0), Waiting("c", 1, None)]
    has_time = False
    admission_queue.ask_again("b")
    has_time = True
    assert Admitted("c", 1) in admission_queue.leave("b", 2.0), "who leaves while waiting frees the slot"
    assert (admission_queue.num_active, admission_queue.num_waiting) == (2, 0)


LATENCY_S = {"pixel": {1: 0.010, 2: 0.014, 3: 0.018, 4: 0.022}, "wan": {1: 0.030, 2: 0.045, 3: 0.06, 4: 0.07}}
PERIODS = {"pixel": 1 / 30, "wan": 12 / 30}


@pytest.mark.parametrize(
    ("players", "expected"),
    [
        ({}, 0.0),
        ({"pixel": 1}, 0.3),
        ({"pixel": 4}, 0.66),
        ({"pixel": 5}, 0.96),  # a full batch and one of a single session
        ({"pixel": 8}, 1.32),
        ({"wan": 1}, 0.075),
        ({"pixel": 2, "wan": 3}, 0.42 + 0.15),
    ],
)
def test_a_round_of_ticks_is_full_batches_and_a_rest_for_each_world(players: dict[str, int], expected: float) -> None:
    demands = [Demand(world, PERIODS[world]) for world, number in players.items() for _ in range(number)]
    assert load(demands, LATENCY_S) == pytest.approx(expected, abs=1e-9)


def test_frames_take_time_beside_the_ticks_on_all_cores_but_are_sent_by_one() -> None:
    demands = [Demand("pixel", 1 / 30)] * 2
    assert load(demands, LATENCY_S, frame_s=0.002) == pytest.approx(0.42 + 0.12)
    assert load(demands, LATENCY_S, frame_s=0.002, num_cores=2) == pytest.approx(0.42 + 0.06)
    assert load(demands, LATENCY_S, frame_s=0.015, num_cores=64) == pytest.approx(0.9)
    chunks = [Demand("wan", 12 / 30, chunk_frames=12)]
    assert load(chunks, LATENCY_S, frame_s=0.001) == pytest.approx(0.075 + 0.03)


@pytest.mark.parametrize(
    ("step", "decode", "threads", "cores", "expected"),
    [
        (20.0, 3.0, 1, 2, 20.0),  # decoding has the other core
        (20.0, 3.0, 2, 2, 21.5),  # it takes turns with the step
        (20.0, 3.0, 2, 1, 43.0),
        (20.0, 3.0, 2, 16, 20.0),
        (2.0, 9.0, 1, 2, 9.0),  # the decoder is the slower one
    ],
)
def test_a_tick_takes_as_long_as_its_slower_part_and_no_less_than_all_work_on_all_cores(
    step: float, decode: float, threads: int, cores: int, expected: float
) -> None:
    assert tick_ms(step, decode, threads, cores) == pytest.approx(expected)


def test_fewer_players_never_need_more_time() -> None:
    uneven = {"pixel": {1: 0.010, 2: 0.031, 3: 0.022, 4: 0.024}}
    loads = [load([Demand("pixel", 0.1)] * players, uneven) for players in range(9)]
    assert loads == sorted(loads)
    assert loads[2] == pytest.approx(0.22)


def test_the_fastest_player_of_a_world_sets_its_pace() -> None:
    """Others of that world are stepped with it or apart; stepping together is the least time they need."""
    demands = [Demand("pixel", 1 / 30), Demand("pixel", 1 / 60)]
    assert load(demands, LATENCY_S) == pytest.approx(0.014 * 60)


@pytest.fixture
def slow_server() -> Iterator[RunningServer]:
    """A server with slots for six, whose measured latencies leave time for two."""
    config = ServerConfig(
        max_sessions=6, address_share=1.0, num_threads=1, headroom=0.8, hold_s=0.0, max_per_address=100
    )
    with serve(config, {"pixel": tiny_world}) as server:
        fix_tick_times(server.engine, "pixel", {1: 8.0, 2: 16.0, 3: 30.0, 4: 40.0, 5: 50.0, 6: 60.0})
        yield server


async def admitted(client: Raw, *, within_s: float = 5.0) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not isinstance(message := await client.receive(), Welcome):
                assert isinstance(message, Queued), message
            client.welcome = message
            return True
    return False


async def keep_playing(client: Raw) -> None:
    while True:
        await client.play(1)


async def all_play(server: RunningServer, clients: list[Raw]) -> None:
    """Wait until the world of each of these clients has been stepped."""
    sessions = [session_of(server, client.welcome.session) for client in clients]
    await until(lambda: all(session.run.frame > 1 for session in sessions), "all have played")


@pytest.mark.parametrize("way", ["leaves", "vanishes", "pauses", "stalls"])
async def test_a_player_too_many_waits_until_another_makes_room(slow_server: RunningServer, way: str) -> None:
    async with raw_client(slow_server.url, hello()) as first, raw_client(slow_server.url, hello()) as second:
        playing = [asyncio.create_task(keep_playing(client)) for client in (first, second)]
        await all_play(slow_server, [first, second])
        async with raw_client(slow_server.url) as third:
            await third.send(hello())
            message = await third.receive()
            assert isinstance(message, Queued)
            assert message.position == 1
            assert not await admitted(third, within_s=1.5), "there is no time for it"
            assert slow_server.engine.num_sessions == (2, 1)
            if way != "pauses":
                playing[0].cancel()
            if way == "leaves":
                await first.send(Bye())
            elif way == "vanishes":
                first.socket.transport.abort()
            elif way == "pauses":
                await first.send(Pause())
            assert await admitted(third)
            assert len(await third.play(5)) == 5
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


@pytest.mark.parametrize("paused", [1, 2])
async def test_no_more_are_admitted_together_than_there_is_time_for(slow_server: RunningServer, paused: int) -> None:
    """Three wait at once; one or two others pause."""
    async with AsyncExitStack() as stack:
        first, second, *waiting = [await stack.enter_async_context(raw_client(slow_server.url)) for _ in range(5)]
        for client in (first, second):
            await client.send(hello())
            assert await admitted(client)
        playing = [asyncio.create_task(keep_playing(client)) for client in (first, second)]
        await all_play(slow_server, [first, second])
        for client in waiting:
            await client.send(hello())
            assert isinstance(await client.receive(), Queued)
        for client in (first, second)[:paused]:
            await client.send(Pause())
        entered = [await admitted(client) for client in waiting[:paused]]
        playing += [asyncio.create_task(keep_playing(client)) for client in waiting[:paused]]
        assert all(entered)
        assert not await admitted(waiting[paused], within_s=2.5)
        assert slow_server.engine.num_sessions == (2 + paused, 3 - paused)
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


async def test_a_first_player_is_admitted_however_slow_the_machine_is(slow_server: RunningServer) -> None:
    fix_tick_times(slow_server.engine, "pixel", dict.fromkeys(range(1, 7), 10_000.0))
    async with raw_client(slow_server.url, hello()) as only:
        assert len(await only.play(3)) == 3


async def test_idle_sessions_need_no_time(slow_server: RunningServer) -> None:
    """Six have a slot, five of them paused."""
    async with AsyncExitStack() as stack:
        for _ in range(6):
            client = await stack.enter_async_context(raw_client(slow_server.url))
            await client.send(hello())
            assert await admitted(client)
            await client.play(1)
            await client.send(Pause())
        assert slow_server.engine.num_sessions == (6, 0)


@pytest.mark.parametrize("way", ["leaves", "pauses"])
async def test_a_player_who_comes_back_from_a_pause_waits_while_others_have_the_time(
    slow_server: RunningServer, way: str
) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(raw_client(slow_server.url)) for _ in range(3)]
        playing = []
        for client in (first, second, third):
            await client.send(hello())
            assert await admitted(client)
            if client is first:
                await client.play(2)
                await client.send(Pause(seq=1))
                await client.control_receipt(1)
            else:
                playing.append(asyncio.create_task(keep_playing(client)))
        await all_play(slow_server, [second, third])
        await asyncio.sleep(RECENT_S)  # the pause must be over for admission
        await first.send(Play(seq=2))
        while isinstance(message := await first.receive(), Frame):
            pass  # one that was under way
        assert message == Queued(position=1, eta_s=None)
        frame = session_of(slow_server, first.welcome.session).run.frame
        await asyncio.sleep(0.5)
        assert session_of(slow_server, first.welcome.session).run.frame == frame, "it waits"
        await second.send(Bye() if way == "leaves" else Pause())
        assert (await first.control_receipt(2)).status == "applied"
        assert (await first.play(5))[-1].run_frame >= frame + 3
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


async def test_a_player_who_waits_to_come_back_may_leave_pause_or_reconnect(slow_server: RunningServer) -> None:
    queue = slow_server.engine._registry._table.queue
    async with AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(raw_client(slow_server.url)) for _ in range(3)]
        await first.send(hello())
        assert await admitted(first)
        await first.play(1)
        await first.send(Pause())
        await asyncio.sleep(RECENT_S)
        for client in (second, third):
            await client.send(hello())
            assert await admitted(client)
        playing = [asyncio.create_task(keep_playing(client)) for client in (second, third)]
        await all_play(slow_server, [second, third])
        await first.send(Play(seq=1))
        await until(lambda: queue.num_waiting == 1, "it waits")
        fourth = await stack.enter_async_context(raw_client(slow_server.url))
        await fourth.send(hello())
        assert await fourth.receive() == Queued(position=2, eta_s=None)
        await first.send(Play(seq=2))
        await first.control_receipt(1)
        assert queue.place(first.welcome.session) == Waiting(first.welcome.session, 1, None), "it keeps its place"
        await first.send(Pause(seq=3))
        await first.control_receipt(2)
        await first.control_receipt(3)
        assert await fourth.receive() == Queued(position=1, eta_s=None)
        await fourth.send(Bye())
        await fourth.close_code()
        assert queue.num_waiting == 0
        await first.send(Play(seq=4))
        await until(lambda: queue.num_waiting == 1, "it waits again")
        back = await stack.enter_async_context(raw_client(slow_server.url))
        await back.send(resuming(first.welcome, 0))
        assert await admitted(back), "it still has its slot"
        await back.send(Play(seq=1))
        await until(lambda: queue.num_waiting == 1, "it waits after the reconnect, too")
        await back.send(Bye())
        await back.close_code()
        assert (queue.num_active, queue.num_waiting) == (2, 0)
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
