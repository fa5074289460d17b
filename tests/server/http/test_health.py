"""`/healthz` is for whoever restarts the process: it fails when only a new process can help, and not before."""

from __future__ import annotations

import threading
from typing import NoReturn

import httpx
import pytest

from server.config import ServerConfig
from server.engine.engine import Engine
from server.engine.model_runner import ModelRunner
from server.wire.protocol import Ack
from tests.server.raw import hello, raw_client
from tests.server.serving import serve
from tests.server.waiting import until
from world.checkpoint import World
from world.testing import tiny_world

CONFIG = ServerConfig(num_threads=1, headroom=None)


def broken(*_: object) -> NoReturn:
    raise ArithmeticError("out of paint")


async def test_after_a_model_has_failed_in_play_the_process_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(CONFIG, {"pixel": tiny_world}) as server:
        async with raw_client(server.url, hello()) as player:
            await player.play(2)
            assert httpx.get(f"{server.url}/healthz").status_code == 200
            monkeypatch.setattr(ModelRunner, "step", broken)
            await player.send(Ack(frame=10**9))
            assert (await player.error()).code == "internal"
        answer = httpx.get(f"{server.url}/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "failed"})


async def test_if_the_models_thread_has_ended_in_any_way_the_process_is_unhealthy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    with serve(CONFIG, {"pixel": tiny_world}) as server:
        monkeypatch.setattr(Engine, "_fail", broken)
        monkeypatch.setattr(Engine, "_wait_for_work", broken)
        with server.engine._lock:
            server.engine._lock.notify_all()
        await until(lambda: not server.engine._thread.is_alive(), "the thread ends")
        assert httpx.get(f"{server.url}/healthz").status_code == 503


@pytest.mark.parametrize("fails", [False, True])
async def test_while_worlds_load_the_process_is_healthy_and_if_they_cannot_it_is_not(fails: bool) -> None:
    may_load = threading.Event()

    def load() -> World:
        may_load.wait(30)
        return broken() if fails else tiny_world()

    with serve(CONFIG, {"pixel": load}, wait_until_ready=False) as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        may_load.set()
        await until(server.engine.ready.is_set, "the world is loaded or has failed")
        assert httpx.get(f"{server.url}/healthz").status_code == (503 if fails else 200)
