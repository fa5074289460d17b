"""What users of the Python client get wrong, and what surrounds it: each is the right thing or an error at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.asyncio.server
from lightcone_client import (
    ActionError,
    ConnectionFailedError,
    ConnectionLostError,
    Session,
    SyncSession,
    UsageError,
    connect,
    play,
)
from lightcone_client.addresses import is_loopback, stream_url
from lightcone_client.gym import LightconeEnv

from server.config import ServerConfig
from server.engine.model_runner import WorldLoader
from tests.server.serving import RunningServer, serve
from world import World
from world.testing import tiny_world

CONFIG = ServerConfig(
    max_sessions=2, queue_limit=2, num_threads=1, hold_s=0.0, headroom=None, max_per_address=100, address_share=1.0
)
JOIN_S = 20.0


def exclusive_world() -> World:
    """Return a world that takes one button at a time."""
    world = tiny_world()
    world.card = replace(world.card, exclusive_buttons=True)
    return world


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    worlds: dict[str, WorldLoader | Path] = {
        "pixel": tiny_world,
        "wan": partial(tiny_world, config="wan"),
        "exclusive": exclusive_world,
    }
    with serve(CONFIG, worlds) as running:
        yield running


@pytest.mark.parametrize(
    ("address", "stream"),
    [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/v1/stream"),
        ("https://play.example.org", "wss://play.example.org/v1/stream"),
        ("http://127.0.0.1:8080/play/", "ws://127.0.0.1:8080/play/v1/stream"),
        ("http://127.0.0.1:8080/play?world=pong#take=x", "ws://127.0.0.1:8080/play/v1/stream"),
        ("https://h/a/b/v1/stream", "wss://h/a/b/v1/stream"),
        ("ws://h/stream-of-pong", "ws://h/stream-of-pong"),
        ("ws://h", "ws://h/v1/stream"),
    ],
)
def test_the_stream_is_found_below_the_address_of_the_page(address: str, stream: str) -> None:
    assert stream_url(address) == stream


@contextlib.asynccontextmanager
async def proxied(server: RunningServer, path: str) -> AsyncIterator[int]:
    """Serve the server's stream below another path, as a proxy does; yield the port."""

    async def forward(client: websockets.asyncio.server.ServerConnection) -> None:
        if client.request is None or client.request.path != f"{path}v1/stream":
            await client.close(1008, "no such path")
            return
        target = stream_url(server.url)
        async with websockets.asyncio.client.connect(target, compression=None, max_size=None, proxy=None) as upstream:

            async def pump(source: Any, sink: Any) -> None:
                async for message in source:
                    await sink.send(message)
                await sink.close()

            await asyncio.gather(pump(client, upstream), pump(upstream, client))

    async with websockets.asyncio.server.serve(forward, "127.0.0.1", 0, compression=None) as running:
        yield running.sockets[0].getsockname()[1]


async def test_a_server_below_a_path_of_its_proxy_is_played(server: RunningServer) -> None:
    async with (
        proxied(server, "/play/") as port,
        connect(f"http://127.0.0.1:{port}/play/?world=pixel", world="pixel") as session,
    ):
        assert (await session.frame()).kind == "start"


async def test_an_address_that_is_not_the_page_s_is_reported_with_the_remedy(server: RunningServer) -> None:
    with pytest.raises(ConnectionFailedError, match=r"HTTP 403; give the address of the server's page"):
        async with connect(f"{server.url}/play/", world="pixel"):
            pass


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "127.0.0.1:9", "socks5://127.0.0.1:9"])
async def test_this_machine_is_reached_without_its_proxy(
    server: RunningServer, no_proxy: pytest.MonkeyPatch, proxy: str
) -> None:
    no_proxy.setenv("http_proxy", proxy)
    no_proxy.setenv("https_proxy", proxy)
    for address in (server.url, server.url.replace("127.0.0.1", "localhost")):
        async with connect(address, world="pixel") as session:
            assert (await session.frame()).kind == "start"


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "127.0.0.1:9", "socks5://127.0.0.1:9"])
async def test_an_unusable_proxy_is_named(no_proxy: pytest.MonkeyPatch, proxy: str) -> None:
    no_proxy.setenv("http_proxy", proxy)
    with pytest.raises(ConnectionFailedError, match=f"the proxy {proxy}"):
        async with connect("http://lightcone.invalid:8000", world="pixel"):
            pass


@pytest.mark.parametrize("address", ["http://[::1", "http://127.0.0.1:99999", "ftp://127.0.0.1", "http://" + "a" * 70])
async def test_an_address_that_is_none_is_reported_by_the_same_error(address: str) -> None:
    with pytest.raises(ConnectionFailedError):
        async with connect(address, world="pixel", timeout_s=1.0):
            pass


def test_addresses_of_this_machine() -> None:
    ours = ("ws://127.0.0.1:1/", "ws://localhost", "ws://a.localhost", "ws://[::1]:8", "ws://127.9.9.9")
    assert [is_loopback(url) for url in (*ours, "ws://10.0.0.1", "ws://localhost.example.org")] == [True] * 5 + [
        False
    ] * 2


def in_threads(number: int, work: Callable[[], object]) -> list[BaseException | None]:
    """Run `work` in threads at once; return what each raised. Fails if one does not end."""
    raised: list[BaseException | None] = [None] * number

    def run(index: int) -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001  # passed on
            raised[index] = exc

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    return raised


def test_threads_that_advance_take_turns(server: RunningServer) -> None:
    seen: list[list[int]] = []
    with play(server.url, world="wan", pacing="lockstep") as session:

        def work() -> None:
            seen.extend([frame.run_frame for frame in session.advance(["up"])] for _ in range(3))

        assert in_threads(3, work) == [None] * 3
    assert sorted(seen) == [list(range(start, start + 12)) for start in range(1, 108, 12)]


def test_an_advance_beside_a_call_that_waits_for_a_frame_is_an_error(server: RunningServer) -> None:
    with play(server.url, world="pixel", pacing="lockstep") as session:
        session.frame()
        waiting = threading.Thread(target=lambda: session.frame(), daemon=True)
        waiting.start()
        while not session._session._frames._num_waiting:
            time.sleep(0.01)
        with pytest.raises(UsageError, match="open a session for each"):
            session.advance(["up"])
        session.act(["up"])
        waiting.join(JOIN_S)
        assert not waiting.is_alive()


def test_threads_that_wait_learn_that_the_session_is_closed(server: RunningServer) -> None:
    raised: list[list[BaseException | None]] = []
    with play(server.url, world="pixel", pacing="lockstep") as session:
        session.frame()
        waiting = threading.Thread(target=lambda: raised.append(in_threads(3, session.frame)))
        waiting.start()
        while session._session._frames._num_waiting < 3:
            time.sleep(0.01)
    waiting.join(JOIN_S)
    assert [type(error) for error in raised[0]] == [ConnectionLostError] * 3


USES: dict[str, Callable[[SyncSession], object]] = {
    "frame": lambda session: session.frame(),
    "act": lambda session: session.act(["up"]),
    "advance": lambda session: session.advance(["up"]),
    "pause": lambda session: session.pause(),
    "fork": lambda session: session.fork(),
    "save": lambda session: session.save(),
    "action_log": lambda session: session.action_log(),
}


def test_use_after_close_is_an_error_at_once(server: RunningServer) -> None:
    with play(server.url, world="pixel") as session:
        session.frame()
    for name, use in USES.items():
        assert [type(error) for error in in_threads(1, partial(use, session))] == [ConnectionLostError], name
    env = LightconeEnv(server.url, "pixel")
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(ConnectionLostError, match="closed"):
        env.step(env.action_space.sample())


async def test_use_after_close_is_an_error_with_asyncio_too(server: RunningServer) -> None:
    async with connect(server.url, world="pixel", pacing="lockstep") as session:
        await session.frame()
    uses = (session.frame, session.act, session.advance, session.pause, session.fork, session.action_log)
    for use in uses:
        with pytest.raises(ConnectionLostError, match="closed"):
            await asyncio.wait_for(use(), JOIN_S)


def _run(use: Callable[[], Coroutine[Any, Any, object]]) -> None:
    asyncio.run(use())


async def test_a_session_is_not_for_another_event_loop(server: RunningServer) -> None:
    async with connect(server.url, world="pixel") as session:
        for use in (session.frame, session.act, session.pause):
            raised = await asyncio.to_thread(in_threads, 1, partial(_run, use))
            assert [type(error) for error in raised] == [UsageError]
        assert (await session.frame()).kind == "start"


def exit_code_of_fork(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; return 0 if it raised UsageError. Fails if it does not end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
        except UsageError:
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + JOIN_S
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            pytest.fail("the forked process waits for ever")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def test_a_forked_process_cannot_use_the_session_and_does_it_no_harm(server: RunningServer) -> None:
    def leave_and_use(session: SyncSession) -> None:
        session._loop.stop()
        session.frame()

    with play(server.url, world="pixel", pacing="lockstep") as session:
        session.frame()
        for use in (*USES.values(), leave_and_use):
            assert exit_code_of_fork(partial(use, session)) == 0
        assert len(session.advance(["up"])) == 1


async def test_a_forked_process_cannot_use_a_session_of_asyncio(server: RunningServer) -> None:
    def use(session: Session) -> None:
        coroutine = session.frame()
        coroutine.send(None)

    async with connect(server.url, world="pixel", pacing="lockstep") as session:
        assert exit_code_of_fork(partial(use, session)) == 0
        assert (await session.frame()).kind == "start"


@pytest.mark.parametrize(
    ("buttons", "axes", "message"),
    [
        (["jump"], {}, "button 'jump': wan has up, down"),
        ("jump", {}, "button 'jump': wan has up, down"),
        ([], {"turn": 0.5}, "axis 'turn': wan has axis0"),
        ([], {"axis0": float("nan")}, "axis 'axis0' is to move by nan: give a finite number"),
        ([], {"axis0": "far"}, "axis 'axis0' is to move by 'far': give a finite number"),
    ],
)
async def test_an_impossible_action_is_an_error_before_it_is_sent(
    server: RunningServer, buttons: list[str], axes: dict[str, float], message: str
) -> None:
    async with connect(server.url, world="wan", pacing="lockstep") as session:
        for use in (session.act, session.advance):
            with pytest.raises(ActionError, match=message):
                await use(buttons, axes)
        assert (await session.frame()).kind == "start"
        assert len(await session.advance("up", {"axis0": 5.0})) == 12


@pytest.mark.parametrize(
    ("world", "actions", "bad"),
    [
        ("exclusive", "buttons", [3, -1, 0.5, [1], "up", float("nan")]),
        ("pixel", "buttons", [[2, 0], [0.5, 0], [1], None, [float("nan"), 0]]),
        ("wan", "all", [[0, 0, 1.5], [-0.1, 0, 0], [0, 0, float("nan")], "up"]),
    ],
)
def test_an_action_outside_an_environment_s_space_is_an_error(
    server: RunningServer, world: str, actions: Any, bad: list[object]
) -> None:
    env = LightconeEnv(server.url, world, actions=actions)
    try:
        env.reset(seed=0)
        for action in bad:
            with pytest.raises(ActionError, match="expected one of"):
                env.step(action)
        assert env.step(env.action_space.sample())[4]["run_frame"] > 0
    finally:
        env.close()
