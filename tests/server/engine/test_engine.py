"""The model and decode threads: the order of starts, warm-up, and what happens when a model fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from server.config import ServerConfig
from server.engine import model_runner
from server.engine.engine import Engine
from server.engine.model_runner import ModelRunner, Stepped, share_cores
from server.engine.slot_jobs import SlotJobs
from server.errors import NotReadyError, ShuttingDownError
from server.sessions import pending_requests
from server.sessions.run import RunRequest, StartRequest
from server.wire.protocol import Pause, Receipt, Start, StartFrom
from tests.server.raw import Raw, RawClient, hello, raw_client
from tests.server.resuming import session_of
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world.checkpoint import World
from world.testing import tiny_world

CONFIG = ServerConfig(address_share=1.0, max_sessions=3, num_threads=1, resume_s=0.0, headroom=None)

Beginning = Callable[[ModelRunner, int, RunRequest], Generator[None, None, NDArray[np.uint8]]]


async def controls_applied(client: Raw, num: int) -> list[int]:
    """Return the numbers of the next applied controls."""
    seqs: list[int] = []
    while len(seqs) < num:
        if isinstance(message := await client.receive(), Receipt):
            seqs.append(message.seq)
    return seqs


def pending_seed(server: RunningServer, client: Raw) -> int | None:
    """Return the seed of a client's pending start; None without one."""
    request = session_of(server, client.welcome.session)._pending.start
    return request.seed if isinstance(request, StartRequest) else None


async def test_a_server_that_stops_while_it_loads_loads_no_further_world() -> None:
    loading, go_on = threading.Event(), threading.Event()
    loaded: list[str] = []

    def first() -> World:
        loading.set()
        go_on.wait()
        loaded.append("first")
        return tiny_world()

    def second() -> World:
        loaded.append("second")
        return tiny_world()

    def is_closed() -> bool:
        try:
            engine.info("first")
        except ShuttingDownError:
            return True
        except NotReadyError:
            return False
        return False

    engine = Engine(CONFIG, {"first": first, "second": second})
    engine.start()
    await asyncio.to_thread(loading.wait)
    stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
    try:
        await until(is_closed, "the engine is closed")
    finally:
        go_on.set()
        await stopping
    assert loaded == ["first"]
    assert not engine.world_registry.worlds


async def test_a_start_replaced_while_another_session_starts_is_never_executed(
    raw: RawClient, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest request is executed, and its receipts follow; the one before it is not."""
    busy, may_continue, executed = threading.Event(), threading.Event(), []
    real: Beginning = ModelRunner.begin

    def begin(runner: ModelRunner, slot: int, request: RunRequest) -> Generator[None, None, NDArray[np.uint8]]:
        assert isinstance(request, StartRequest)
        seed = request.seed
        executed.append(seed)
        if seed == 1:
            busy.set()
            assert may_continue.wait(20)
        return real(runner, slot, request)

    async with raw(hello()) as first, raw(hello()) as second:
        for client in (first, second):
            await client.play(1)
            await client.send(Pause())
        monkeypatch.setattr(pending_requests, "INTERVAL_S", 0.0)  # a start need not wait after the previous one
        monkeypatch.setattr(ModelRunner, "begin", begin)
        await first.send(Start(start=StartFrom(seed=1)))
        assert await asyncio.to_thread(busy.wait, 20)
        await second.send(Start(seq=10, start=StartFrom(index=0, seed=2)))
        await until(lambda: pending_seed(server, second) == 2, "the start with seed 2 is pending")
        await second.send(Start(seq=11, start=StartFrom(index=1, seed=3)))
        await until(lambda: pending_seed(server, second) == 3, "the start with seed 3 has replaced it")
        may_continue.set()
        assert await controls_applied(second, 2) == [10, 11]
    assert executed == [1, 3]


async def test_a_slot_is_released_before_its_next_player_starts(
    raw: RawClient, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never after: that would release what the next player has started."""
    reached, may_continue = threading.Event(), threading.Event()
    real = SlotJobs._next

    def held_up(slot_jobs: SlotJobs) -> object:
        if not may_continue.is_set():
            reached.set()
            assert may_continue.wait(20)
        return real(slot_jobs)

    async with AsyncExitStack() as stay:
        leaver = raw(hello())
        client = await leaver.__aenter__()
        await client.play(1)
        slot = session_of(server, client.welcome.session).life.slot
        monkeypatch.setattr(SlotJobs, "_next", held_up)
        assert await asyncio.to_thread(reached.wait, 20)  # freed slots are released, the next job is not chosen yet
        await leaver.__aexit__(None, None, None)
        await until(lambda: server.engine.num_sessions == (0, 0), "the slot is free")
        newcomer = await stay.enter_async_context(raw(hello()))
        session = session_of(server, newcomer.welcome.session)
        assert session.life.slot == slot
        await until(lambda: session._pending.start is not None, "its start is pending")
        may_continue.set()
        await newcomer.play(4)


async def test_players_get_frames_between_the_starts_of_others(
    raw: RawClient, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks_at_start: list[int] = []
    real: Beginning = ModelRunner.begin

    def slow_start(runner: ModelRunner, slot: int, request: RunRequest) -> Generator[None, None, NDArray[np.uint8]]:
        ticks_at_start.append(server.engine.num_ticks)
        time.sleep(0.3)  # long enough for all three starts, and frames of the player, to be due together
        return real(runner, slot, request)

    async def play_on(client: Raw) -> None:
        while True:
            await client.play(1)

    async with raw(hello()) as player:
        await player.play(2)
        monkeypatch.setattr(ModelRunner, "begin", slow_start)
        playing = asyncio.create_task(play_on(player))
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(raw(hello(pacing="lockstep"))) for _ in range(3)]
            for other in others:
                await other.play(1)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    assert len(set(ticks_at_start)) == 3  # never two starts in a row


async def test_repeated_starts_are_slowed_down(raw: RawClient) -> None:
    async with raw(hello(pacing="lockstep")) as client:
        await client.play(1)
        began = time.monotonic()
        for seq in range(3):
            await client.send(Start(seq=seq))
            assert (await client.play(1))[0].kind == "start"
        assert time.monotonic() - began > 2 * 0.5


@pytest.mark.parametrize("method", ["step", "decode"])
async def test_a_world_that_fails_ends_every_session_and_readiness(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(CONFIG, {"pixel": tiny_world}) as server:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw_client(server.url, hello())) for _ in range(3)]
            waiting = await stack.enter_async_context(raw_client(server.url))
            await waiting.send(hello())
            await waiting.receive()
            for client in clients:
                await client.play(2)

            def broken(*_: object) -> Stepped:
                raise ArithmeticError("the world is upside down")

            monkeypatch.setattr(ModelRunner, method, broken)
            for client in [*clients, waiting]:
                error = await client.error()
                assert (error.code, error.fatal) == ("internal", True)
                assert "upside down" not in error.message
                assert await client.close_code() == 1011
        assert "upside down" in caplog.text
        assert isinstance(server.engine.failure, ArithmeticError)
        reply = await asyncio.to_thread(httpx.get, f"{server.url}/readyz")
        assert (reply.status_code, reply.json()) == (503, {"status": "failed"})
        async with raw_client(server.url) as late:
            await late.send(hello())
            assert (await late.error()).code == "internal"
        began = time.monotonic()
    assert time.monotonic() - began < 10  # neither thread waits for the other


async def test_nobody_joins_while_the_server_says_goodbye() -> None:
    with serve(CONFIG, {"pixel": tiny_world}) as server:
        server.engine.say_goodbye(1.0, ShuttingDownError("closing"))
        async with raw_client(server.url) as late:
            await late.send(hello())
            assert (await late.error()).code == "shutting_down"
        assert server.engine.num_sessions == (0, 0)
        assert not server.engine.is_ready


def test_every_batch_size_is_warmed_up_on_the_threads_that_will_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    threads: set[str] = set()
    real = ModelRunner.decode

    def decode(runner: ModelRunner, stepped: Stepped, slots: list[int]) -> NDArray[np.uint8]:
        sizes.append(len(slots))
        threads.add(threading.current_thread().name)
        return real(runner, stepped, slots)

    monkeypatch.setattr(ModelRunner, "decode", decode)
    with serve(CONFIG, {"pixel": tiny_world}):
        pass
    assert set(sizes) == {1, 2, 3}
    assert threads == {"lightcone-decode"}


@pytest.mark.parametrize(("num_cores", "expected"), [(2, (2, 1)), (8, (2, 2))])
def test_on_few_cores_the_decoder_has_one_thread(
    num_cores: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch reports it on each of the two threads, after both have computed something."""
    monkeypatch.setattr(model_runner, "num_cores", lambda: num_cores)
    seen: dict[str, int] = {}
    decode_may_set, decode_has_set, model_has_set = threading.Event(), threading.Event(), threading.Event()
    work: list[Callable[[], object]] = []

    def computed(name: str) -> None:
        torch.ones(64, 64) @ torch.ones(64, 64)
        seen[name] = torch.get_num_threads()

    def on_decode_thread(function: Callable[[], object]) -> None:
        work.append(function)
        decode_may_set.set()
        assert decode_has_set.wait(10)

    def decode_thread() -> None:
        assert decode_may_set.wait(10)
        work[0]()
        decode_has_set.set()
        assert model_has_set.wait(10)
        computed("decode")

    def model_thread() -> None:
        share_cores(2, on_decode_thread)
        model_has_set.set()
        computed("model")

    threads = [threading.Thread(target=target) for target in (decode_thread, model_thread)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(1)
    assert (seen["model"], seen["decode"]) == expected
